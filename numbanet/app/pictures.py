"""Photographs in and out: files, linear light, labels.

Networks learn linear light. As in tiny-cuda-nn, a stored value c becomes (c / 255)^2.2 and comes
back by the power 1 / 2.2: a pure power, not the piecewise sRGB curve, in both directions.
"""

import io
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from numbanet.app.errors import AppError, UsageError
from numbanet.app.files import write_file

GAMMA = np.float32(2.2)


def to_linear(encoded: np.ndarray) -> np.ndarray:
    """Linear light of displayed values in [0, 1]."""
    return encoded**GAMMA


def to_encoded(linear: np.ndarray) -> np.ndarray:
    """Displayed values in [0, 1] of linear light, which may lie outside."""
    return np.clip(np.nan_to_num(linear), 0, 1) ** (1 / GAMMA)


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels of values in [0, 1]."""
    error = np.mean(np.square(picture.astype(np.float64) - reference))
    return float(-10 * np.log10(max(error, 1e-20)))


@dataclass(frozen=True)
class Photograph:
    """An image as displayed values, float32 [height, width, 3] in [0, 1]."""

    path: Path
    encoded: np.ndarray

    @cached_property
    def linear(self) -> np.ndarray:
        return to_linear(self.encoded)

    @property
    def height(self) -> int:
        return self.encoded.shape[0]

    @property
    def width(self) -> int:
        return self.encoded.shape[1]

    @cached_property
    def digest(self) -> str:
        """Identifies the pixels, whatever the file format."""
        size = np.array([self.height, self.width]).astype("<i8").tobytes()
        return sha256(size + self.encoded.astype("<f4").tobytes()).hexdigest()

    def centres(self, first_row: int, last_row: int) -> np.ndarray:
        """Positions (x, y) of the pixel centres of some rows, [n, 2]."""
        x = (np.arange(self.width, dtype=np.float32) + 0.5) / np.float32(self.width)
        y = (np.arange(first_row, last_row, dtype=np.float32) + 0.5) / np.float32(self.height)
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def read_photograph(path: str | Path) -> Photograph:
    """Read any image that Pillow knows as RGB; transparency is ignored, rotation is applied.

    Raises:
        UsageError: there is no such file, or it is not an image.
    """
    path = Path(path)
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits a value, which convert("RGB") would cut off
                grey = np.asarray(image, np.float32)[..., None] / np.float32(65535)
                encoded = np.repeat(np.clip(grey, 0, 1), 3, axis=-1)
            else:
                encoded = np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
    except Image.UnidentifiedImageError as error:
        raise UsageError(f"'{path}' is not an image that can be read") from error
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror or error}") from error
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"cannot read '{path}': {error}") from error
    return Photograph(path, encoded)


def write_picture(path: Path, image: np.ndarray | Image.Image) -> None:
    """Write an image, or displayed values [height, width, 3] in [0, 1], as PNG."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray((image * 255 + 0.5).astype(np.uint8))
    content = io.BytesIO()
    image.save(content, "png")
    write_file(path, content.getvalue())


def contact_sheet(
    pictures: list[tuple[Path, str]], *, largest: int = 512, columns: int = 6
) -> Image.Image:
    """Labelled pictures of one size side by side, each at most `largest` pixels wide and high.

    Raises:
        AppError: one of the files cannot be read.
    """
    tiles = []
    for path, label in pictures:
        try:
            with Image.open(path) as file:
                tile = file.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise AppError(f"cannot read '{path}' for the contact sheet: {error}") from error
        tile.thumbnail((largest, largest), Image.Resampling.LANCZOS)
        tiles.append((tile, label))
    width, height = tiles[0][0].size
    gap = 12
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    font = ImageFont.load_default(max(12, width // 20))
    label_height = 2 * round(font.size)
    step_x, step_y = width + gap, height + label_height
    sheet = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (tile, label) in enumerate(tiles):
        x, y = gap + i % columns * step_x, gap + i // columns * step_y
        sheet.paste(tile, (x, y))
        middle = (x + width // 2, y + height + label_height // 2)
        draw.text(middle, label, fill="#333333", font=font, anchor="mm")
    return sheet
