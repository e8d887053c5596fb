"""Images from files, in their own range of values, within a limit of memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from numbanet.app.errors import AppError, UsageError
from numbanet.app.photograph import Photograph, strips
from numbanet.regular_file import open_regular

# Those that Pillow reads by itself: EPS starts another program, IPTC holds images of any format.
FORMATS = (
    *("AVIF", "BMP", "DDS", "DIB", "FITS", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "PCX"),
    *("PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"),
)
MOST_PIXELS = 100_000_000
FILE_BYTES = 16  # a pixel, and HEADER_BYTES more: larger files are not opened
HEADER_BYTES = 1 << 26

# Numbers of bits that integers have; the smallest that holds an image's maximum is taken.
BITS = (1, 2, 4, 8, 10, 12, 14, 16, 24, 31)
# White of floating-point images. Maxima from 1 to 16 could be those of brighter than white or of a
# dark picture in the next range.
FLOAT_WHITES = (1, 255, 4095, 65535)
DARKEST = 16
BITS_PER_SAMPLE = 258  # TIFF's tag

_limits: list[int | None] = []  # Pillow's limit when each open image was opened
_limits_lock = threading.Lock()


@contextmanager
def open_image(
    path: str | Path, max_pixels: int = MOST_PIXELS, remedy: str | None = None
) -> Iterator[Image.Image]:
    """Image of a regular file, whose pixels have not been read yet.

    Args:
        max_pixels: larger images are refused.
        remedy: told of these; the option --max-pixels by default.

    Raises:
        UsageError: there is no such file, it is no image, or the image has more than max_pixels.
    """
    shown = f"'{path}'"
    Image.init()  # Pillow's own readers, which depend on its build
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        with (
            open_regular(path, HEADER_BYTES + FILE_BYTES * max_pixels) as file,
            _any_size(),
            Image.open(file, formats=formats) as image,
        ):
            check_size(shown, image, max_pixels, remedy)
            yield image
    except (AppError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise UsageError(f"{shown} is not an image that can be read") from error
    except Exception as error:  # damaged files bring all kinds of them out of Pillow's readers
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UsageError(f"cannot read {shown}: {reason}") from error


def check_size(shown: str, image: Image.Image, max_pixels: int, remedy: str | None = None) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UsageError(f"{shown} has {width} x {height} pixels, which are none to learn")
    if width * height > max_pixels:
        raise UsageError(
            f"{shown} has {width} x {height} = {width * height} pixels and would take up to "
            f"{width * height * 24 / 1e9:.1f} GB; "
            + (remedy or f"to allow it: --max-pixels {width * height}")
        )


@contextmanager
def _any_size() -> Iterator[None]:
    """Disable Pillow's process-wide limit of sizes: check_size has a better one.

    Several images can be open, in any order and in several threads; the last one brings it back.
    """
    with _limits_lock:
        _limits.append(Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _limits_lock:
            Image.MAX_IMAGE_PIXELS = _limits.pop()


def read_photograph(
    path: str | Path, max_pixels: int = MOST_PIXELS, white: float | None = None
) -> Photograph:
    """Read an image as RGB, or as grey if it has more than 8 bits a value.

    Transparency is ignored, the camera's rotation is applied.

    Args:
        max_pixels: larger images are refused.
        white: the value of white in an image with more than 8 bits; None to tell it from the
            file and its largest value.

    Raises:
        UsageError: the file cannot be read, is no image, is too large, or its range is not clear.
    """
    path = Path(path)
    with open_image(path, max_pixels) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode in ("F", "I") or image.mode.startswith("I;"):
            return read_grey(path, image, white)
        if white is not None:
            raise UsageError(f"'{path}' has 8 bits a value, of which white is 255: no --white")
        return Photograph(path, read_colours(image))


def rows_of(image: Image.Image) -> Iterator[tuple[int, int, Image.Image]]:
    """Strips of an image: first row, last row (excluded) and pixels of each."""
    for first, last in strips(image.height, image.width):
        yield first, last, image.crop((0, first, image.width, last))


def read_colours(image: Image.Image) -> np.ndarray:
    """Pixels of a Photograph in colour, from any mode."""
    pixels = np.zeros((image.height, image.width, 4), np.uint8)
    for first, last, strip in rows_of(image):
        pixels[first:last, :, :3] = np.asarray(strip.convert("RGB"))
    return pixels.view("<u4")[..., 0].astype(np.uint32, copy=False)


def read_grey(path: Path, image: Image.Image, white: float | None) -> Photograph:
    """Photograph of one channel, divided by its value for white."""
    pixels = np.empty((image.height, image.width), np.float32)
    least, most = np.inf, -np.inf
    for first, last, strip in rows_of(image):
        values = np.asarray(strip)
        least, most = np.minimum(least, values.min()), np.maximum(most, values.max())
        pixels[first:last] = values
    shown = f"'{path}' ({image.mode}, values from {least:g} to {most:g})"
    if not np.isfinite([least, most]).all():
        raise UsageError(f"{shown}: there are values that are infinite or no numbers")
    note = ""
    if white is None:
        white = white_of(image, float(least), float(most))
        if white is None:
            raise UsageError(
                f"{shown}: its range is not clear; say which value is white: --white 1"
            )
        if white != (1 if image.mode == "F" else 65535):
            note = f"{shown}: white is taken to be {white:g}; for another: --white VALUE"
    pixels /= np.float32(white)
    np.clip(pixels, 0, 1, out=pixels)
    return Photograph(path, pixels, white, note)


def white_of(image: Image.Image, least: float, most: float) -> float | None:
    """Value of white in an image with more than 8 bits a value, if it can be determined."""
    if least < 0:
        return None
    if image.mode == "F":
        white = next((white for white in FLOAT_WHITES if most <= white), None)
        return None if white is None or (white > 1 and most * DARKEST < white) else white
    if image.format == "PPM":  # Pillow has scaled the values
        return 65535
    bits = image.tag_v2.get(BITS_PER_SAMPLE, (0,))[0] if image.format == "TIFF" else 0
    if 8 < bits < 16:
        return 2**bits - 1
    return next(2**bits - 1 for bits in BITS if most < 2**bits)
