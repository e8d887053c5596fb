"""The samples run as they are."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.mark.parametrize("bits", [8, 16])
def test_learn_an_image(program, photograph, config, tmp_path, bits):
    if bits == 16:  # which Pillow cuts off if it is asked for RGB
        grey = np.asarray(Image.open(photograph).convert("L"), np.uint16) * 257
        Image.fromarray(grey).save(photograph)
    _, environment = program
    sample = f"{environment['PYTHONPATH']}/samples/learn_an_image.py"
    done = subprocess.run(
        [sys.executable, sample, photograph, config, "100"],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "learned.png").is_file()
    psnr = next(line for line in done.stdout.splitlines() if line.startswith("PSNR"))
    assert float(psnr.split()[1]) > 20
    with Image.open(tmp_path / "learned.png") as learned, Image.open(photograph) as original:
        means = np.mean(learned), np.mean(original) / (257 if bits == 16 else 1)
    assert means[0] == pytest.approx(means[1], abs=4)


def test_reconstruct_a_phantom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SAMPLES))
    import reconstruct_a_phantom

    network, classical = reconstruct_a_phantom.main(n_steps=200)
    assert network > 18.5
    assert network > classical + 1
    with Image.open("phantom.png") as picture:
        assert picture.size == (1152, 384)
