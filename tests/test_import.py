"""What `import numbanet` costs: nothing that a machine may lack, or that is slow and optional."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = (
    "cuda",
    "matplotlib",
    "msgpack",
    "numba.cuda",
    "numba_cuda",
    "PIL",
    "rich",
    "torch",
)
USE = """
import numpy as np
model = numbanet.create_from_config(2, 3, {"network": {"n_neurons": 16, "n_hidden_layers": 1}})
model.network.params
"""


def modules_after(code):
    code = f"import json, sys\nimport numbanet\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("code", ["", USE], ids=["import", "use"])
def test_nothing_optional_is_imported(code):
    found = [name for name in modules_after(code) if is_optional(name)]
    assert not found


def test_jobs_that_learn_something_are_public_and_light():
    names = {"learn_field", "learn_image", "learn_surface", "learn_volume"}
    import numbanet

    assert names <= set(numbanet.__all__)
    assert names <= set(vars(numbanet))


def is_optional(module):
    return any(module == name or module.startswith(f"{name}.") for name in OPTIONAL)


def test_all_public_names_are_there():
    import numbanet

    wanted = (
        "ConfigError, DeviceCodeError, Encoding, Network, NetworkWithInputEncoding, SnapshotError, "
        "Trainer, UnknownOptionWarning, create_encoding, create_from_config, create_loss, "
        "create_network, create_optimizer, from_matrices, load, load_config, load_params, "
        "read_tcnn_snapshot, register, save_params, to_matrices, __version__"
    )
    missing = [name for name in wanted.split(", ") if not hasattr(numbanet, name)]
    assert not missing


def test_an_import_compiles_nothing(tmp_path):
    environment = {**os.environ, "NUMBANET_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", "import numbanet"], env=environment, check=True)
    assert list(tmp_path.glob("**/*.cpu")) == []
