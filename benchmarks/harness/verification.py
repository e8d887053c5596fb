"""Verification of a method against the slow float64 step."""

import numpy as np

from benchmarks.harness.process import MethodError

BATCH_SIZE, N_STEPS, N_OUTPUTS = 2**15, 3, 2**10  # more than one block of every method
TABLE_SCALE = 0.5  # of initial parameters: features and outputs are far from zero
# Relative errors: of outputs, of the loss before each step, and where a method shows them of the
# first loss and its gradients, and of the change of parameters after all steps. A ReLU whose input
# is zero but for rounding shows as 1e-4 in the gradients.
TOLERANCES = {
    "float32": {"outputs": 1e-3, "losses": 1e-2, "loss": 1e-5, "gradients": 1e-3, "update": 1e-3},
    "float16": {"outputs": 1e-2, "losses": 3e-2},
    "bfloat16": {"outputs": 3e-2, "losses": 1e-1},
}


class Expected:
    """Expected results of a method, in float64."""

    def __init__(self, job, kind):
        self.job, self.kind = job, kind
        n_batches = N_STEPS if kind == "training" else 1
        batch = job.batch(n_batches * BATCH_SIZE, np.random.default_rng(7))
        parts = [np.split(array, n_batches) for array in batch]
        self.batches = list(zip(*parts, strict=True))
        self.params = job.initial_params(TABLE_SCALE)
        first = self.batches[0][0][:N_OUTPUTS]
        self.outputs = job.reference(self.params, True).forward(first)[-1]
        self.training = {}
        if kind == "training":
            self.training = {skips: self.trained(skips) for skips in (True, False)}

    def trained(self, skips_zero_gradients):
        reference = self.job.reference(self.params, skips_zero_gradients)
        loss, gradients = reference.loss_and_gradients(*self.batches[0])
        losses = np.array([reference.step(*batch) for batch in self.batches])
        return {"loss": loss, "gradients": gradients, "losses": losses, "params": reference.params}

    def errors(self, process, facts):
        """Return the largest relative errors of a method, by quantity."""
        found = process.verify(self.kind, self.batches)
        errors = {"outputs": relative(found["outputs"][:N_OUTPUTS], self.outputs)}
        if self.kind == "training":
            expected = self.training[facts["skips_zero_gradients"]]
            errors["losses"] = np.max(np.abs(found["losses"] / expected["losses"] - 1))
            if found["gradients"] is not None:
                errors["loss"] = abs(found["loss"] / expected["loss"] - 1)
                errors["gradients"] = self.worst(relative, found, expected, "gradients")
            if found["params"] is not None:
                errors["update"] = self.worst(relative_update, found, expected, "params")
        return {quantity: float(error) for quantity, error in errors.items()}

    def worst(self, measure, *results_and_name):
        """The larger error of network and grid."""
        *results, name = results_and_name
        arrays = [*(result[name] for result in results), self.params]
        parts = [np.split(array, [self.job.n_network]) for array in arrays]
        return max(measure(*part) for part in zip(*parts, strict=True) if part[0].size)


def relative(found, expected, *_):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def relative_update(found, expected, before):
    # Of the mean: Adam's first steps only look at the sign, so an entry may differ wholly
    return np.mean(np.abs(found - expected)) / np.mean(np.abs(expected - before))


def check(errors, precision):
    for quantity, error in errors.items():
        allowed = TOLERANCES[precision][quantity]
        if not error <= allowed:
            raise MethodError(
                f"{quantity} differ from the float64 reference by {error:.1e}, "
                f"allowed {allowed:.0e}"
            )
