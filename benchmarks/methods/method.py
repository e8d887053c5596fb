"""Interface of methods, on a CPU and on a GPU."""

import numpy as np


class Method:
    """Built from a job (harness/jobs.py) and a vector of initial parameters.

    A method adds `step(inputs, targets)`, which returns the loss before it, `inference(inputs)` and
    `versions()`, and overrides what is different from here.
    """

    precision = "float32"
    skips_zero_gradients = True  # whether Adam leaves grid entries without a gradient alone
    stream = None  # on which it queues its work, if it is CUDA's and known

    def place(self, array):
        """Hand an array to the framework; not timed."""
        return array

    def wait(self, result):
        """Return it when it is there."""
        return result

    def numpy(self, outputs):
        """Outputs [n, n_outputs]."""
        return np.asarray(outputs)

    def number(self, loss):
        return float(loss)

    def loss_and_gradients(self, inputs, targets):
        """The loss and a vector of gradients, or None where they are not shown."""
        return

    def params(self):
        """The vector of parameters as it is now, or None where it is not shown."""
        return
