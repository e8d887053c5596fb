"""`numbanet compile`: kernels for GPUs that are not there."""

import json
import re

import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet import code_store
from numbanet.app.compile_kernels import compile_kernels
from numbanet.app.output import Output
from numbanet.cuda.toolchain import toolkit

pytestmark = pytest.mark.usefixtures("assembler")
CONFIG = {  # of few kernels, and small ones
    "encoding": {"otype": "Identity"},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 1},
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "SGD"},
}


def complaint(answer, exit_code):
    code, _, err = answer
    assert code == exit_code
    (line,) = err.splitlines()
    assert line.startswith("numbanet: error: ")
    return line


class Recording(Output):
    """Notes each result with how many kernels there were on disk when it was told."""

    def result(self, value):
        told.append((value, len(list(code_store.directory().glob("*.ptx")))))


told = []


def test_each_kernel_is_told_when_it_is_there(command, monkeypatch, tmp_path):
    """As JSON for one architecture, in a table for another."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "kernels"))
    compile_kernels(config, [(9, 0)], "float16", (3, 1), 300, Recording(as_json=True))
    *kernels, (last, _) = told
    assert last == {"directory": str(tmp_path / "kernels")}
    assert [n for _, n in kernels] == list(range(1, len(kernels) + 1))
    assert all(found["architecture"] == "sm_90" for found, _ in kernels)
    assert len({found["kernel"] for found, _ in kernels}) == len(kernels), "each has its name"

    arguments = ["compile", config, "--batch-size", 300, "--dims", 3, 1]
    code, out, err = command(*arguments, "--arch", "sm_80", "--arch", "sm_90")
    assert (code, err) == (0, "")
    for name in ("sm_80", "sm_90"):
        assert re.search(rf"^{name}, float16: \d+ kernels, \d+\.\d s$", out, re.MULTILINE)
    row = r"^fused_inference_Padded_float16 +(\d+) +(?:0|1024) +0 +0 +(\d+) +(\d+) +\d+\.\d+$"
    found = re.findall(row, out, re.MULTILINE)
    assert len(found) == 2
    assert all(8 <= int(registers) <= 255 for registers, *_ in found)
    assert f"kept in {tmp_path / 'kernels'}" in out
    n_kernels = sum(map(int, re.findall(r"(\d+) kernels", out)))
    assert len(list((tmp_path / "kernels").glob("*.cubin"))) <= n_kernels
    before = set((tmp_path / "kernels").iterdir())
    assert command(*arguments, "--arch", "sm_90", "--quiet") == (0, "", "")
    assert set((tmp_path / "kernels").iterdir()) == before, "the second time all is found"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ([], 2, "name the GPU's architecture, as in --arch sm_90, or --target cpu"),
        (["--arch", "sm_90", "--torch"], 2, "--torch goes with --target cpu"),
        (["--arch", "sm_90", "--target", "cpu"], 2, "leave it out with --target cpu"),
        (["--arch", "hopper"], 2, "'hopper' is no architecture; one is sm_90"),
        (["--arch", "sm_70"], 1, "sm_70, float16: compute capability 7.0 is not supported"),
        (["--arch", "sm_91"], 1, "sm_91"),
        (["--arch", "sm_90", "--dims", "0", "3"], 2, "n_input_dims: 0 is not allowed"),
        (["--arch", "sm_90", "--batch-size", "0"], 2, "batch size: 0 is not allowed"),
        (["--arch", "sm_90", "--precision", "float8"], 2, "invalid choice: 'float8'"),
    ],
)
def test_wrong_arguments(command, config, arguments, exit_code, message):
    assert message in complaint(command("compile", config, *arguments), exit_code)


def test_a_config_that_cannot_be_used(command, tmp_path):
    path = tmp_path / "config.json"
    assert "No such file" in complaint(command("compile", path, "--arch", "sm_90"), 2)
    path.write_text('{"network": {"otype": "FullyFusedMLP", "n_neurons": 17}}')
    assert "n_neurons" in complaint(command("compile", path, "--arch", "sm_90"), 2)


def test_kernels_that_cannot_be_kept(command, config, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    message = complaint(command("compile", config, "--arch", "sm_90"), 1)
    assert "cannot keep kernels in" in message
    assert "NUMBANET_CACHE_DIR" in message


def test_without_an_assembler(command, config, monkeypatch):
    def missing():
        raise toolkit.missing("an assembler")

    monkeypatch.setattr(toolkit, "assembler_version", missing)
    message = complaint(command("compile", config, "--arch", "sm_90"), 1)
    assert 'an assembler was not found; pip install "numbanet[' in message
