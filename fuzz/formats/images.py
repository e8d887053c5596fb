"""Images: files of every format that is written here, damaged as bytes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fuzz.campaign import Format
from fuzz.mutations import choice, damaged
from numbanet.app.errors import UsageError
from numbanet.app.image_file import read_photograph

FORMATS = {  # and the modes in which each is written
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("P", "L"),
    "ICO": ("RGBA",),
    "JPEG": ("L", "RGB", "CMYK"),
    "PCX": ("L", "RGB"),
    "PNG": ("1", "L", "P", "LA", "RGB", "RGBA", "I;16"),
    "PPM": ("L", "RGB", "I;16"),
    "SGI": ("L", "RGB"),
    "TGA": ("L", "RGB", "RGBA"),
    "TIFF": ("1", "L", "P", "RGB", "CMYK", "LAB", "I;16", "I", "F"),
    "WEBP": ("RGB", "RGBA"),
}
MOST_PIXELS = 1 << 20
EXTREMES = (0.0, 1.0, 255.0, 65535.0, -1.0, 1e30, np.inf, np.nan)


def image(rng, mode: str) -> Image.Image:
    height, width = (int(n) for n in rng.integers(1, 9, 2))
    if mode in ("F", "I", "I;16"):
        dtype = {"F": np.float32, "I": np.int32, "I;16": np.uint16}[mode]
        most = choice(rng, EXTREMES) if mode == "F" else choice(rng, (1, 255, 4095, 65535))
        return Image.fromarray((rng.random((height, width)) * most).astype(dtype))
    made = Image.fromarray(rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
    if mode != "LAB":
        return made.convert(mode)
    return Image.merge(mode, made.split())


def generate(rng) -> tuple[bytes, float | None]:
    """The content of a file, and what is said to be white in it."""
    kind = choice(rng, [name for name in FORMATS if name in Image.SAVE or not Image.init()])
    file = io.BytesIO()
    image(rng, choice(rng, FORMATS[kind])).save(file, kind)
    content = damaged(rng, file.getvalue()) if rng.random() < 0.9 else file.getvalue()
    return content, choice(rng, (None, None, None, 1.0, 255.0))


def read(case: tuple[bytes, float | None], folder: Path) -> None:
    """Read it; what is read are numbers from 0 to 1."""
    content, white = case
    (folder / "image").write_bytes(content)
    photograph = read_photograph(folder / "image", MOST_PIXELS, white)
    encoded = photograph.encoded()
    assert encoded.shape == (photograph.height, photograph.width, 3)
    assert 0 <= encoded.min() <= encoded.max() <= 1
    assert len(photograph.digest) == 64


# Pillow warns of damage that it can live with.
FORMAT = Format("images", generate, read, (UsageError,), (UserWarning, DeprecationWarning))
