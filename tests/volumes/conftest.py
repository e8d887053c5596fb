"""The targets that rays are marched on, and a scene for them."""

import numpy as np
import pytest

from numbanet.cuda.target import CudaTarget
from numbanet.targets import target_for


@pytest.fixture(params=["cpu", "cuda"])
def target(request):
    """The CPU, and what stands for a GPU."""
    if request.param == "cpu":
        return target_for("cpu", None)
    return CudaTarget(request.getfixturevalue("cuda_device"), "float16")


@pytest.fixture
def rays():
    """Through [-1, 1]^3 and past it, some along an axis, [n, 3] each."""
    rng = np.random.default_rng(5)
    origins = rng.normal(size=(70, 3))
    origins *= 3 / np.linalg.norm(origins, axis=1, keepdims=True)
    directions = rng.uniform(-0.9, 0.9, (70, 3)) - origins
    origins[:3], directions[:3] = 3 * np.eye(3) + [0.11, 0.07, 0.05], -np.eye(3)
    origins[3] = (0.1, 0.2, 0.05)  # within the grid
    directions[4] *= -1  # away from it
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return origins.astype(np.float32), directions.astype(np.float32)
