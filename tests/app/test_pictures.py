"""Photographs in and out."""

import numpy as np
import pytest
from PIL import Image

from numbanet.app.errors import UsageError
from numbanet.app.pictures import (
    contact_sheet,
    psnr,
    read_photograph,
    to_encoded,
    to_linear,
    write_picture,
)


def test_gamma_there_and_back():
    displayed = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_allclose(to_linear(displayed), displayed.astype(float) ** 2.2, atol=1e-6)
    np.testing.assert_allclose(to_encoded(to_linear(displayed)), displayed, atol=1e-6)
    outside = np.array([-1, 2, np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(to_encoded(outside), [0, 1, 0, 1])


def test_psnr_of_a_known_error():
    reference = np.zeros((4, 4, 3), np.float32)
    assert psnr(reference + np.float32(0.1), reference) == pytest.approx(20, abs=1e-5)
    assert psnr(reference, reference) == pytest.approx(200)


def test_pictures_come_back_to_the_last_bit(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (5, 9, 3), np.uint8)
    path = tmp_path / "picture.png"
    write_picture(path, pixels.astype(np.float32) / 255)
    photograph = read_photograph(path)
    assert (photograph.height, photograph.width) == (5, 9)
    np.testing.assert_array_equal(np.round(photograph.encoded * 255), pixels)
    written = to_encoded(photograph.linear)
    write_picture(path, written)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_any_kind_of_image_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    grey = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("RGB")
    grey.convert(mode).save(path)
    np.testing.assert_allclose(read_photograph(path).encoded, [[[0] * 3, [1] * 3]], atol=1e-6)


def test_sixteen_bit_images_keep_their_range(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(path)
    np.testing.assert_allclose(read_photograph(path).encoded[0, :, 0], [0, 0.5, 1], atol=1e-4)


def test_the_camera_s_rotation_is_applied(tmp_path):
    path = tmp_path / "picture.jpg"
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(path, exif=exif)
    assert read_photograph(path).encoded.shape == (6, 4, 3)


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


def test_centres_are_those_of_the_rows(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (4, 2)).save(path)
    photograph = read_photograph(path)
    np.testing.assert_array_equal(
        photograph.centres(1, 2), [[0.125, 0.75], [0.375, 0.75], [0.625, 0.75], [0.875, 0.75]]
    )
    assert photograph.centres(0, 2).shape == (8, 2)


def test_contact_sheet(tmp_path):
    colours = ["red", "lime", "blue", "black", "white", "gray", "navy", "teal"]
    pictures = []
    for colour in colours:
        path = tmp_path / f"{colour}.png"
        Image.new("RGB", (1000, 500), colour).save(path)
        pictures.append((path, colour))
    sheet = contact_sheet(pictures[:3])
    assert sheet.size == (3 * 512 + 4 * 12, 256 + 12 + 2 * 25)
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        assert sheet.getpixel((12 + i * 524 + 256, 12 + 128)) == colour
    label = np.asarray(sheet)[12 + 256 :, 12 : 12 + 512]
    assert label.min() < 100  # there is text
    two_rows = contact_sheet(pictures)
    assert two_rows.size[0] == 6 * 524 + 12
    assert two_rows.size[1] == 2 * (256 + 50) + 12
