"""Whether a method computes what it should: compared with the slow float64 step."""

from functools import cache

import numpy as np
from image_job import N_NETWORK, Photograph, Reference, initial_params
from method_process import MethodError

BATCH_SIZE, N_STEPS = 2**15, 3  # more than one block of every method
# A ReLU whose input is zero but for rounding shows as 1e-4 in the gradients
TOLERANCES = {"loss": 1e-5, "gradients": 1e-3, "update": 1e-3, "outputs": 1e-3}


class Verification:
    def __init__(self, image):
        photograph, rng = Photograph(image), np.random.default_rng(7)
        self.batches = [photograph.batch(BATCH_SIZE, rng) for _ in range(N_STEPS)]
        self.params = initial_params(table_scale=0.5)  # features and outputs far from zero
        self.expected = cache(self.expected)

    def errors(self, process):
        """Return the version numbers of a method and its relative errors."""
        versions, skips_zero_gradients = process.describe()
        found = process.verify(self.params, self.batches)
        return versions, compare(found, self.expected(skips_zero_gradients), self.params)

    def expected(self, skips_zero_gradients):
        reference = Reference(self.params, skips_zero_gradients)
        loss, gradients = reference.loss_and_gradients(*self.batches[0])
        for batch in self.batches:
            reference.step(*batch)
        return {
            "loss": loss,
            "gradients": gradients,
            "params": reference.params,
            "outputs": reference.forward(self.batches[0][0])[-1],
        }


def compare(found, expected, params):
    """Return relative errors, of network or grid, whichever is worse."""

    def worst(measure, name):
        parts = zip(*(np.split(result[name], [N_NETWORK]) for result in (found, expected)),
                    np.split(params, [N_NETWORK]), strict=True)  # fmt: skip
        return max(measure(*part) for part in parts)

    def relative(a, b, *_):
        return float(np.linalg.norm(a - b) / np.linalg.norm(b))

    def relative_update(a, b, before):
        # Of the mean: Adam's first steps only look at the sign, so an entry may differ wholly
        return float(np.mean(np.abs(a - b)) / np.mean(np.abs(b - before)))

    return {
        "loss": abs(found["loss"] / expected["loss"] - 1),
        "gradients": worst(relative, "gradients"),
        "update": worst(relative_update, "params"),
        "outputs": relative(found["outputs"], expected["outputs"]),
    }


def check(errors):
    for quantity, error in errors.items():
        if not error <= TOLERANCES[quantity]:
            raise MethodError(
                f"{quantity} differs from the float64 reference by {error:.1e}, "
                f"allowed {TOLERANCES[quantity]:.0e}"
            )
