"""Pictures to write: a network's output, and several of them on one sheet."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

from numbanet.app.errors import AppError, UsageError
from numbanet.app.files import write_file
from numbanet.app.image_file import MOST_PIXELS, open_image

LARGEST = 512  # pixels of a tile on a sheet
ERROR_SCALE = 8  # of an error map
PARTS = 6  # of the shorter side is the part that is shown enlarged


def squared_error(picture: np.ndarray, reference: np.ndarray) -> float:
    """Sum of the squared differences of all values."""
    difference = picture.astype(np.float64)
    difference -= reference
    return float(np.vdot(difference, difference))


def psnr(squares: float, n: int) -> float:
    """Peak signal-to-noise ratio in decibels of n values in [0, 1], from their squared_error."""
    return -10 * math.log10(max(squares / n, 1e-20))


class Picture:
    """Picture that is assembled strip by strip.

    Args:
        width, height: in pixels.
    """

    def __init__(self, width: int, height: int):
        self.image = Image.new("RGB", (width, height))

    def draw(self, first_row: int, encoded: np.ndarray) -> None:
        """Write displayed values [rows, width, 3] in [0, 1] to some rows."""
        strip = Image.fromarray((encoded * 255 + 0.5).astype(np.uint8))
        self.image.paste(strip, (0, first_row))


def write_picture(path: Path, image: Image.Image) -> None:
    """Write an image as PNG."""
    content = io.BytesIO()
    image.save(content, "png")
    write_file(path, content.getbuffer())


def error_map(picture: Path, reference: Path, max_pixels: int = MOST_PIXELS) -> Image.Image:
    """Absolute differences of displayed values times ERROR_SCALE, black where they are equal."""
    images = []
    for path in (picture, reference):
        with opened(path, max_pixels) as file:  # one at a time
            images.append(file.convert("RGB"))
    difference = ImageChops.difference(*images)
    return difference.point([min(ERROR_SCALE * k, 255) for k in range(256)] * 3)


def detail(reference: Path, max_pixels: int = MOST_PIXELS) -> tuple[int, int, int, int]:
    """Part of a picture, a sixth of its shorter side, in which neighbours differ most."""
    with opened(reference, max_pixels) as file:
        width, height = file.size
        file.thumbnail((256, 256), Image.Resampling.BOX)
        grey = np.asarray(file.convert("L"), np.float64)
    size = max(min(width, height) // PARTS, 1)
    scale = width / grey.shape[1]
    n = min(max(round(size / scale), 1), *grey.shape)
    change = np.abs(np.diff(grey, axis=0, append=grey[-1:]))
    change += np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    sums = np.pad(change, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    windows = sums[n:, n:] - sums[:-n, n:] - sums[n:, :-n] + sums[:-n, :-n]
    row, column = np.unravel_index(np.argmax(windows), windows.shape)
    left, top = min(round(column * scale), width - size), min(round(row * scale), height - size)
    return left, top, left + size, top + size


def enlarged(
    picture: Path, part: tuple[int, int, int, int], max_pixels: int = MOST_PIXELS
) -> Image.Image:
    """Part of a picture, its pixels as squares, as large as a tile may be."""
    with opened(picture, max_pixels) as file:
        cut = file.convert("RGB").crop(part)
    side = min(*file.size, LARGEST)
    return cut.resize((side, side), Image.Resampling.NEAREST)


@contextmanager
def opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Picture that was written before."""
    try:
        with open_image(path, max_pixels) as file:
            yield file
    except UsageError as error:
        raise AppError(f"for the contact sheet: {error}") from error


def contact_sheet(
    pictures: list[tuple[Path | Image.Image, str]],
    *,
    largest: int = LARGEST,
    columns: int = 6,
    max_pixels: int = MOST_PIXELS,
) -> Image.Image:
    """Labelled pictures side by side, as large as the first one and at most `largest` pixels.

    Raises:
        AppError: one of the files cannot be read.
    """
    tiles = []
    for picture, label in pictures:
        if isinstance(picture, Image.Image):
            tiles.append((picture, label))
            continue
        with opened(picture, max_pixels) as file:
            file.thumbnail((largest, largest), Image.Resampling.LANCZOS)
            tiles.append((file.convert("RGB"), label))
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
        tile.thumbnail((width, height), Image.Resampling.BOX)
        sheet.paste(tile, (x + (width - tile.width) // 2, y + (height - tile.height) // 2))
        middle = (x + width // 2, y + height + label_height // 2)
        draw.text(middle, label, fill="#333333", font=font, anchor="mm")
    return sheet
