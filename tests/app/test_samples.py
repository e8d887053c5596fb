"""The samples run as they are."""

import subprocess
import sys


def test_learn_an_image(program, photograph, config, tmp_path):
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
