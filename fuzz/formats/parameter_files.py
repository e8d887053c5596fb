"""Files of parameters: .npy, raw numbers, and the same with something else in front."""

import io
from pathlib import Path

import numpy as np

import numbanet
from fuzz.campaign import Format
from fuzz.mutations import choice, damaged
from numbanet.snapshot import SnapshotError

DTYPES = ("<f2", "<f4", ">f4", "<f8", "<i4", "?", "S3", "<c8", "<M8[s]", [("a", "<f4")])
SHAPES = ((20,), (0,), (4, 5), (), (1, 20))


def generate(rng) -> tuple[bytes, str | None]:
    """The content of a file, and the type that it is said to be of."""
    file = io.BytesIO()
    array = np.zeros(choice(rng, SHAPES), choice(rng, DTYPES))
    np.lib.format.write_array(file, array, choice(rng, ((1, 0), (2, 0), (3, 0))))
    content = damaged(rng, file.getvalue()) if rng.random() < 0.9 else file.getvalue()
    return content, choice(rng, (None, None, None, "float16", "float32"))


def load(case: tuple[bytes, str | None], folder: Path) -> None:
    content, dtype = case
    (folder / "params").write_bytes(content)
    params = numbanet.load_params(folder / "params", dtype)
    assert (params.dtype, params.ndim) == (np.float32, 1)
    assert params.size * 2 <= len(content)


FORMAT = Format("parameter_files", generate, load, (SnapshotError,))
