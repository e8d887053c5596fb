"""Pictures that are written: what a network knows, and many of them on one sheet."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from numbanet.app.errors import AppError, UsageError
from numbanet.app.files import write_file
from numbanet.app.image_file import MOST_PIXELS, open_image


def squared_error(picture: np.ndarray, reference: np.ndarray) -> float:
    """The sum of the squared differences of all values."""
    difference = picture.astype(np.float64)
    difference -= reference
    return float(np.vdot(difference, difference))


def psnr(squares: float, n: int) -> float:
    """Peak signal-to-noise ratio in decibels of n values in [0, 1], from their squared_error."""
    return -10 * math.log10(max(squares / n, 1e-20))


class Picture:
    """A picture that is made strip by strip.

    Args:
        width, height: in pixels.
    """

    def __init__(self, width: int, height: int):
        self.image = Image.new("RGB", (width, height))

    def draw(self, first_row: int, encoded: np.ndarray) -> None:
        """Put displayed values [rows, width, 3] in [0, 1] there."""
        strip = Image.fromarray((encoded * 255 + 0.5).astype(np.uint8))
        self.image.paste(strip, (0, first_row))


def write_picture(path: Path, image: Image.Image) -> None:
    """Write an image as PNG."""
    content = io.BytesIO()
    image.save(content, "png")
    write_file(path, content.getbuffer())


def contact_sheet(
    pictures: list[tuple[Path, str]],
    *,
    largest: int = 512,
    columns: int = 6,
    max_pixels: int = MOST_PIXELS,
) -> Image.Image:
    """Labelled pictures of one size side by side, each at most `largest` pixels wide and high.

    Raises:
        AppError: one of the files cannot be read.
    """
    tiles = []
    for path, label in pictures:
        try:
            with open_image(path, max_pixels) as file:
                file.thumbnail((largest, largest), Image.Resampling.LANCZOS)
                tiles.append((file.convert("RGB"), label))
        except UsageError as error:
            raise AppError(f"for the contact sheet: {error}") from error
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
