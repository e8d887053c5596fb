"""Arrays that are given to a trainer and its model, and numbers beside them."""

from functools import cache
from pathlib import Path

import numpy as np

import numbanet
from fuzz.campaign import Format
from fuzz.mutations import EXTREMES, choice

CONFIG = {
    "optimizer": {"otype": "EMA", "nested": {"otype": "Adam"}},
    "encoding": {"otype": "Grid", "n_levels": 2, "log2_hashmap_size": 4, "base_resolution": 2},
    "network": {"otype": "CutlassMLP", "n_neurons": 16, "n_hidden_layers": 1},
}
DIMS = (2, 3)
CALLS = (
    *("training_step", "pdf", "external_dl_dy", "dl_dinput", "inference", "inference_params"),
    *("backward", "double_backward", "input_gradient", "params", "from_matrices"),
)
DTYPES = ("f2", "f4", "f8", ">f4", "g", "i1", "i8", "u8", "?", "c8", "S3", "U2", "M8[s]", "O", "V4")
SHAPES = ((0, 2), (1, 2), (3, 2), (3, 3), (5, 3), (2, 3, 2), (3,), (0,), (), (4, 0), (300, 2))
NUMBERS = (0.0, 0.5, -1.0, 1e-45, 3e38, 1e300, 2.0**31, np.nan, np.inf, -np.inf)


@cache
def model() -> numbanet.TrainableModel:
    return numbanet.create_from_config(*DIMS, CONFIG, device="cpu")


def array(rng, shape: tuple[int, ...]):
    """Nearly what is asked for, or something else."""
    values = rng.random(shape if rng.random() < 0.8 else choice(rng, SHAPES))
    match int(rng.integers(9)):
        case 0:
            return choice(rng, EXTREMES)
        case 1 | 2:
            values = np.where(rng.random(values.shape) < 0.2, choice(rng, NUMBERS), values)
        case 3:
            with np.errstate(all="ignore"):
                return values.astype(choice(rng, DTYPES))
        case 4:
            return values.tolist()
        case 5:
            forms = values.T, np.flip(values), np.ma.masked_array(values), memoryview(values)
            return choice(rng, forms)
        case 6:
            apart = np.zeros(values.nbytes + 1, "u1")[1:].view(values.dtype).reshape(values.shape)
            apart[...] = values
            return apart
    return values.astype(np.float32)


def generate(rng) -> tuple[str, list]:
    """What is called, and an array for inputs, outputs, outputs, inputs, and parameters."""
    n = int(choice(rng, (0, 1, 3, 3, 3, 300)))
    shapes = (n, DIMS[0]), (n, DIMS[1]), (n, DIMS[1]), (n, DIMS[0]), (model().network.n_params,)
    return choice(rng, CALLS), [array(rng, shape) for shape in shapes]


def give(case: tuple[str, list], folder: Path) -> None:
    """Call it; whatever comes, the parameters stay finite."""
    call, (x, y, more, direction, params) = case
    trainer, network = model().trainer, model().network
    before = network.params.copy()
    match call:
        case "training_step":
            trainer.training_step(x, y)
        case "pdf" | "external_dl_dy":
            trainer.training_step(x, y, **{call: more})
        case "dl_dinput":
            trainer.training_step(x, y, dl_dinput=direction)
        case "inference":
            model()(x)
        case "inference_params":
            network(x, params)
        case "backward":
            network.backward(network.forward(x)[1], y)
        case "double_backward":
            network.double_backward(network.forward(x)[1], y, direction)
        case "input_gradient":
            network.input_gradient(1, x)
        case "params":
            network.params = params
            network.params = before
        case _:
            numbanet.from_matrices(network, [x, y])
    assert np.isfinite(network.params).all(), "parameters are infinite or NaN"
    assert np.isfinite(trainer.inference_params).all(), "averages are infinite or NaN"
    trainer.network.params = before


FORMAT = Format("arrays", generate, give, (TypeError, ValueError), (RuntimeWarning, UserWarning))
