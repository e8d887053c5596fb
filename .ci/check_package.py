"""Whether dist/ holds what it should: an sdist with all that git has, and a wheel that works.

    python .ci/check_package.py dist

The wheel is unpacked in a folder of its own and used from there, in a process that does not see the
sources; what it needs is taken from the environment.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USE = """
import os
import numpy as np, numbanet
assert numbanet.__file__.startswith(os.environ["PYTHONPATH"])
config = {
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15},
    "encoding": {
        "otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 7, "base_resolution": 4,
        "per_level_scale": 1.5,
    },
    "network": {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 2},
}
model = numbanet.create_from_config(2, 3, config, device="cpu")
x = np.random.default_rng(0).random((256, 2))
losses = [float(model.trainer.training_step(x, np.full((256, 3), 0.5))) for _ in range(20)]
assert losses[-1] < losses[0]
model.save("model.safetensors")
assert np.array_equal(numbanet.load("model.safetensors", device="cpu")(x), model(x))
"""


def check_sdist(path: Path) -> None:
    """Exit with the names of files that git has and the sdist has not."""
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    missing = sorted(name for name in listed.splitlines() if name not in held)
    if missing:
        sys.exit(f"{path.name} lacks {', '.join(missing)}; MANIFEST.in says what goes into it")


def check_wheel(path: Path) -> None:
    """Use the wheel in an empty folder."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        place = Path(folder, "wheel")
        archive.extractall(place)
        assert (place / "numbanet/py.typed").exists()
        others = {name.partition("/")[0] for name in archive.namelist()} - {"numbanet"}
        assert all(name.endswith(".dist-info") for name in others), others
        environment = os.environ | {"PYTHONPATH": str(place)}
        for program in (["-c", USE], ["-m", "numbanet", "--version"]):
            done = subprocess.run(
                [sys.executable, "-W", "error", *program], cwd=folder, env=environment, check=False
            )
            if done.returncode:
                sys.exit(f"{path.name} does not work where only it is")


def main(folder: Path) -> None:
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    check_sdist(sdist)
    check_wheel(wheel)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
