"""Images from files: every mode in its own range, and nothing hostile."""

import contextlib
import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from numbanet.app import photograph as photographs
from numbanet.app.errors import UsageError
from numbanet.app.image_file import FORMATS, open_image, read_photograph

RAMP = np.linspace(0, 1, 16).reshape(2, 8)
MODES = {  # suffix of a file that keeps the mode
    **dict.fromkeys(("1", "L", "LA", "P", "RGB", "RGBA"), ".png"),
    **dict.fromkeys(("CMYK", "LAB", "PA", "RGBX", "YCbCr"), ".tif"),
}
RANGES = {  # name: (type of the pixels, white, whether it is said)
    "float to 1": (np.float32, 1, False),
    "float to 255": (np.float32, 255, True),
    "float to 4095": (np.float32, 4095, True),
    "float to 65535": (np.float32, 65535, True),
    "int32 to 1": (np.int32, 1, True),
    "int32 to 255": (np.int32, 255, True),
    "int32 to 65535": (np.int32, 65535, False),
    "int32 to 2^31 - 1": (np.int32, 2**31 - 1, True),
    "8 bits in 16": (np.uint16, 255, True),
    "10 bits in 16": (np.uint16, 1023, True),
    "12 bits in 16": (np.uint16, 4095, True),
    "16 bits": (np.uint16, 65535, False),
}


@pytest.fixture
def read(tmp_path):
    """Save pixels, or an image, as a file, and read it as a photograph."""

    def read(pixels, suffix=".tif", **options):
        path = tmp_path / f"picture{suffix}"
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        image.save(path)
        return read_photograph(path, **options)

    return read


@pytest.mark.parametrize("mode", MODES)
def test_eight_bits_of_any_mode_become_rgb(tmp_path, mode):
    levels = np.round(RAMP if mode == "1" else RAMP * 15)
    grey = Image.fromarray((levels * (255 // levels.max())).astype(np.uint8))
    if mode == "LAB":
        image = Image.merge("LAB", [grey, *[Image.new("L", grey.size, 128)] * 2])
        image = Image.frombytes("LAB", grey.size, image.tobytes())
    else:
        image = grey.convert("RGB").convert(mode if mode != "PA" else "P")
        image = image.convert(mode) if mode == "PA" else image
    path = tmp_path / f"picture{MODES[mode]}"
    image.save(path)
    found = read_photograph(path)
    expected = np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
    np.testing.assert_array_equal(found.encoded(), expected)
    assert found.encoded()[0, 0].max() < 0.01
    assert found.encoded()[-1, -1].min() > 0.98
    assert found.note == ""


@pytest.mark.parametrize(
    ("name", "suffix"),
    [(name, ".tif") for name in RANGES] + [(name, ".png") for name in RANGES if "bits" in name],
)
def test_more_bits_are_read_in_their_own_range(read, name, suffix):
    dtype, white, said = RANGES[name]
    found = read((RAMP * white).astype(dtype), suffix)
    assert found.white == white
    assert (f"white is taken to be {white:g}" in found.note) is said
    step = 1 / white if dtype != np.float32 else 1e-6
    for values in (found.encoded(), photographs.to_encoded(found.linear())):
        np.testing.assert_allclose(values, np.repeat(RAMP[..., None], 3, -1), atol=step + 2e-6)


def test_a_dark_image_is_read_as_its_user_says(read):
    dark = np.array([[0, 1000]], np.uint16)
    assert read(dark).encoded()[0, 1, 0] == np.float32(1000) / np.float32(1023)
    assert read(dark, white=65535).encoded()[0, 1, 0] == np.float32(1000) / np.float32(65535)
    bright = np.array([[-1, 0, 3, 6]], np.float32)
    np.testing.assert_array_equal(read(bright, white=4).encoded()[0, :, 0], [0, 0, 0.75, 1])
    with pytest.raises(UsageError, match="8 bits a value, of which white is 255: no --white"):
        read(np.zeros((1, 1), np.uint8), white=1)


def test_a_file_that_tells_its_bits(tmp_path):
    """A TIFF with 12 bits a value: 0, 0x100, 0x200, 0x300, none of which needs more than 10."""
    pixels = bytes.fromhex("000100200300")
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(pixels)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4  # where the pixels lie: behind the tags
    content = b"II*\0" + struct.pack("<IH", 8, len(tags))
    content += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path = tmp_path / "picture.tif"
    path.write_bytes(content + bytes(4) + pixels)
    found = read_photograph(path)
    assert found.white == 4095
    expected = np.array([0, 0x100, 0x200, 0x300]) / 4095
    np.testing.assert_allclose(found.encoded()[0, :, 0], expected, atol=1e-7)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([0, 1.5], "its range is not clear; say which value is white: --white 1"),
        ([0, 70000], "its range is not clear"),
        ([-0.5, 1], "its range is not clear"),
        ([0, np.nan], "infinite or no numbers"),
        ([np.inf, 0], "infinite or no numbers"),
    ],
)
def test_ranges_that_nobody_can_tell_are_refused(read, values, why):
    with pytest.raises(UsageError, match=why):
        read(np.array([values], np.float32))


def test_negative_integers_are_refused(read):
    with pytest.raises(UsageError, match=r"values from -5 to 3\): its range is not clear"):
        read(np.array([[-5, 3]], np.int32))


def test_strips_make_no_difference(read, monkeypatch):
    rng = np.random.default_rng(5)
    for pixels in (rng.integers(0, 256, (9, 7, 3), np.uint8), rng.random((9, 7), np.float32)):
        whole = read(pixels)
        with monkeypatch.context() as small:
            small.setattr(photographs, "PIXELS_AT_ONCE", 15)
            parts = read(pixels)
            assert len(list(parts.strips())) == 5
            assert parts.digest == photographs.Photograph(whole.path, whole.pixels).digest
        np.testing.assert_array_equal(parts.pixels, whole.pixels)
        assert parts.digest == whole.digest


def test_large_images_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    Image.new("L", (13000, 14000)).save(path)  # 182 million pixels, of which Pillow's limit is 179
    monkeypatch.setattr(Image.Image, "crop", lambda *_: pytest.fail("pixels are read"))
    with pytest.raises(UsageError, match=r"4\.\d GB; to allow it: --max-pixels 182000000"):
        read_photograph(path)
    before = Image.MAX_IMAGE_PIXELS
    with open_image(path, 182_000_000) as image:
        assert image.size == (13000, 14000)
    assert before == Image.MAX_IMAGE_PIXELS


def test_several_images_are_open_and_the_limit_comes_back(tmp_path):
    for name in "ab":
        Image.new("L", (3, 2)).save(tmp_path / f"{name}.png")
    before = Image.MAX_IMAGE_PIXELS
    one, other = open_image(tmp_path / "a.png"), open_image(tmp_path / "b.png")
    assert one.__enter__().size == other.__enter__().size == (3, 2)
    one.__exit__(None, None, None)  # the first one first, as in threads
    assert Image.MAX_IMAGE_PIXELS is None
    other.__exit__(None, None, None)
    assert before == Image.MAX_IMAGE_PIXELS


def test_what_is_no_regular_file(tmp_path):
    fifo = tmp_path / "picture.png"
    os.mkfifo(fifo)
    for path, why in [(fifo, "not a regular file but a FIFO"), ("/dev/zero", "a character device")]:
        with pytest.raises(UsageError, match=why):
            read_photograph(path)
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="larger than"):
        read_photograph(large)


def test_formats_that_start_programs_are_not_opened(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(path, "eps")
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program is started"))
    with pytest.raises(UsageError, match="is not an image that can be read"):
        read_photograph(path)
    assert not {"EPS", "IPTC", "WMF", "GRIB", "HDF5", "BUFR"} & set(FORMATS)


def test_damaged_images_are_one_line(tmp_path):
    rng = np.random.default_rng(6)
    image = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    for name in ("BMP", "GIF", "ICO", "JPEG", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"):
        whole = io.BytesIO()
        image.save(whole, name)
        path = tmp_path / f"picture.{name.lower()}"
        for _ in range(20):
            content = bytearray(whole.getvalue())
            for place in rng.integers(0, len(content), 4):
                content[place] = rng.integers(256)
            path.write_bytes(content[: rng.integers(len(content) // 2, len(content) + 1)])
            with contextlib.suppress(UsageError):
                assert read_photograph(path, max_pixels=10**6).encoded().shape[2] == 3


def test_the_camera_s_rotation_is_applied(tmp_path):
    path = tmp_path / "picture.jpg"
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(path, exif=exif)
    assert read_photograph(path).encoded().shape == (6, 4, 3)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\nbroken"])
def test_what_is_no_image(tmp_path, content):
    path = tmp_path / "file.png"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"file\.png"):
        read_photograph(path)


def test_truncated_images(tmp_path):
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(4).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    for length in (30, 60, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(UsageError, match=r"picture\.png"):
            read_photograph(path)
