"""Photographs in and out."""

import numpy as np
import pytest
from PIL import Image

from numbanet.app.errors import AppError
from numbanet.app.image_file import read_photograph
from numbanet.app.photograph import to_encoded, to_linear
from numbanet.app.pictures import (
    ERROR_SCALE,
    Picture,
    contact_sheet,
    detail,
    enlarged,
    error_map,
    psnr,
    squared_error,
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
    squares = squared_error(reference + np.float32(0.1), reference)
    assert psnr(squares, reference.size) == pytest.approx(20, abs=1e-5)
    assert psnr(0, reference.size) == pytest.approx(200)


def test_pictures_come_back_to_the_last_bit(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (5, 9, 3), np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    photograph = read_photograph(path)
    picture = Picture(9, 5)
    for first, last in [(0, 2), (2, 5)]:
        picture.draw(first, to_encoded(photograph.linear(first, last)))
    write_picture(path, picture.image)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


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


def test_a_picture_that_is_gone(tmp_path):
    with pytest.raises(AppError, match=r"for the contact sheet: cannot read .*gone\.png"):
        contact_sheet([(tmp_path / "gone.png", "gone")])


def test_error_maps_and_details(tmp_path):
    pixels = np.full((60, 90, 3), 100, np.uint8)
    pixels[37:43, 60:66] = np.random.default_rng(0).integers(0, 256, (6, 6, 3))
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    Image.fromarray(pixels).save(one)
    changed = pixels.copy()
    changed[5, 7], changed[6, 7] = 110, 0
    Image.fromarray(changed).save(other)
    errors = np.asarray(error_map(other, one))
    assert (errors[5, 7] == 10 * ERROR_SCALE).all()
    assert (errors[6, 7] == 255).all()
    errors = np.delete(errors.reshape(-1, 3), [5 * 90 + 7, 6 * 90 + 7], axis=0)
    assert not errors.any()
    left, top, right, bottom = detail(one)
    assert (right - left, bottom - top) == (10, 10)
    assert left <= 60 <= 66 <= right
    assert top <= 37 <= 43 <= bottom
    part = np.asarray(enlarged(one, (60, 37, 66, 43)))
    assert part.shape == (60, 60, 3)
    np.testing.assert_array_equal(part[::10, ::10], pixels[37:43, 60:66])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 5), (2000, 3)])
def test_details_of_any_size(tmp_path, size):
    path = tmp_path / "picture.png"
    Image.new("RGB", size, "teal").save(path)
    left, top, right, bottom = detail(path)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert enlarged(path, detail(path)).getpixel((0, 0)) == (0, 128, 128)


def test_centres_are_those_of_the_rows(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (4, 2)).save(path)
    photograph = read_photograph(path)
    np.testing.assert_array_equal(
        photograph.centres(1, 2), [[0.125, 0.75], [0.375, 0.75], [0.625, 0.75], [0.875, 0.75]]
    )
    assert photograph.centres(0, 2).shape == (8, 2)
