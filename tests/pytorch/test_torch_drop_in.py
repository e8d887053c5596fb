"""Programs that import tinycudann itself, and the layer below its modules."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from models import HASH, SMOOTH, mlp

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

import numbanet.torch as tcnn  # noqa: E402
from numbanet.torch import bindings, drop_in  # noqa: E402

ROOT = Path(__file__).parents[2]

PROGRAM = """
import numbanet.torch
numbanet.torch.install_as_tinycudann()
numbanet.torch.install_as_tinycudann()  # a second time does no harm

import tinycudann as tcnn
import tinycudann.modules
from tinycudann import Encoding, Network, NetworkWithInputEncoding, free_temporary_memory
from tinycudann.modules import Module, rtc_set_cache_dir

import tinycudann_bindings
import importlib
import importlib.util
(name, *_) = (name for name in vars(tinycudann_bindings) if name.endswith("_C"))
_C = importlib.import_module("tinycudann_bindings." + name)
assert _C.has_networks()
assert importlib.util.find_spec("tinycudann") is not None

rtc_set_cache_dir("anywhere")
assert tcnn.Encoding is numbanet.torch.Encoding
assert issubclass(tcnn.Network, Module)
assert isinstance(tcnn.supports_jit_fusion(), bool)
assert tinycudann.modules._C.batch_size_granularity() == 1
try:
    import tinycudann.nowhere
except ModuleNotFoundError:
    print("done")
"""


def run(program):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_tinycudann_finds_it():
    done = run(PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


PROGRAM_IN_HALVES = """
import torch
import tinycudann as tcnn
grid = tcnn.Encoding(3, {"otype": "Identity"}, device="cpu")
d = torch.zeros(4, 3, dtype=torch.float16)
mask = torch.tensor([True, False, True, False])
d[mask] = grid(torch.ones(2, 3))
assert grid.dtype == torch.float16 and grid.precision == tcnn.modules._C.Precision.Fp16
assert tcnn.modules._C.preferred_precision() == tcnn.modules._C.Precision.Fp16
assert tcnn.Encoding(3, {"otype": "Identity"}, dtype=torch.float32, device="cpu").precision == 0
print(d.sum().item())
"""


def test_programs_that_expect_halves():
    """What they write outputs into may be a half tensor, on a CPU too."""
    done = run(
        "import torch, numbanet.torch\n"
        "numbanet.torch.install_as_tinycudann(dtype=torch.float16)\n"
        "numbanet.torch.install_as_tinycudann()  # which leaves that as it is\n" + PROGRAM_IN_HALVES
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "6.0\n"


def test_programs_that_cannot_be_edited_at_all(tmp_path, monkeypatch):
    program = tmp_path / "train.py"
    (tmp_path / "beside.py").write_text("")
    program.write_text(
        f"import sys, beside\nassert sys.argv[1:] == ['--fast']\n{PROGRAM_IN_HALVES}"
    )
    monkeypatch.setenv("NUMBANET_TORCH_DTYPE", "float16")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "numbanet.torch", str(program), "--fast"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "6.0\n"
    done = subprocess.run(
        [sys.executable, "-m", "numbanet.torch"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "usage: python -m numbanet.torch PROGRAM [ARGUMENTS]\n"


@pytest.mark.parametrize("name", ["half", "float64", "0" * 1000])
def test_a_type_that_does_not_exist(name, monkeypatch):
    monkeypatch.setenv("NUMBANET_TORCH_DTYPE", name)
    with pytest.raises(
        ValueError, match=r"^NUMBANET_TORCH_DTYPE=.* use one of float32, "
    ) as caught:
        tcnn.Encoding(3, {"otype": "Identity"}, device="cpu")
    assert len(str(caught.value)) < 200
    with pytest.raises(ValueError, match=r"dtype: torch\.float64 is not allowed; use one of"):
        tcnn.install_as_tinycudann(dtype=torch.float64)
    assert "tinycudann" not in sys.modules


def test_the_variable_is_for_modules_without_a_type(monkeypatch):
    monkeypatch.setenv("NUMBANET_TORCH_DTYPE", "bfloat16")
    config = {"otype": "Identity"}
    assert tcnn.Encoding(3, config, device="cpu").dtype == torch.bfloat16
    assert tcnn.Encoding(3, config, dtype=torch.float16, device="cpu").dtype == torch.float16
    monkeypatch.setenv("NUMBANET_TORCH_DTYPE", "")
    assert tcnn.Encoding(3, config, device="cpu").dtype == torch.float32


def test_what_official_scripts_import():
    done = run(
        "import importlib.metadata, numbanet.torch\n"
        "numbanet.torch.install_as_tinycudann()\n"
        "from tinycudann.modules import ALL_COMPUTE_CAPABILITIES, system_compute_capability\n"
        "from tinycudann.modules import null_tensor_like, null_tensor_to_none\n"
        "import torch\n"
        "assert importlib.metadata.version('tinycudann') == '2.0'\n"
        "assert importlib.metadata.version('numbanet')\n"
        "assert 'tinycudann' in {each.name for each in importlib.metadata.distributions()}\n"
        "assert system_compute_capability in ALL_COMPUTE_CAPABILITIES\n"
        "x = torch.ones(3, dtype=torch.float16)\n"
        "assert null_tensor_to_none(x) is x\n"
        "null = null_tensor_like(x)\n"
        "assert null.dtype == x.dtype and null_tensor_to_none(null) is None\n"
        "try:\n"
        "    importlib.metadata.version('no-such-package')\n"
        "except importlib.metadata.PackageNotFoundError:\n"
        "    print('done')"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


def test_the_backward_function_that_scripts_call():
    """With a namespace in the place of the forward pass's context; it is differentiable."""
    encoding = tcnn.Encoding(2, SMOOTH, device="cpu")
    native = encoding.native_tcnn_module
    x, dl_dy = torch.rand(9, 2, requires_grad=True), torch.rand(9, 3)
    context, y = native.fwd(x, encoding.params)
    of_forward = SimpleNamespace(native_tcnn_module=native, loss_scale=1.0, native_ctx=context)
    dl_dy.requires_grad_()
    apply = drop_in.ModuleFunctionBackward.apply
    dl_dx, dl_dparams = apply(of_forward, dl_dy, x, encoding.params, y)
    wanted = torch.autograd.grad(encoding(x), (x, encoding.params), dl_dy, create_graph=True)
    torch.testing.assert_close((dl_dx, dl_dparams), wanted)
    along, of = torch.rand(9, 2), (dl_dy, x, encoding.params)
    found = torch.autograd.grad(dl_dx, of, along)
    torch.testing.assert_close(found, torch.autograd.grad(wanted[0], of, along))
    assert found[2].abs().max() > 0
    x = x.detach()
    context, y = native.fwd(x, encoding.params)
    of_forward.native_ctx = context
    dl_dx, dl_dparams = apply(of_forward, dl_dy, x, encoding.params, y)
    assert drop_in.null_tensor_to_none(dl_dx) is None
    torch.testing.assert_close(dl_dparams, wanted[1])


def test_another_tinycudann_is_not_replaced():
    done = run(
        "import sys, types\n"
        "sys.modules['tinycudann'] = types.ModuleType('tinycudann')\n"
        "import numbanet.torch\n"
        "numbanet.torch.install_as_tinycudann()"
    )
    assert done.returncode != 0
    assert "RuntimeError: tinycudann has been imported already" in done.stderr


def test_importing_needs_no_gpu():
    """What speaks to a GPU waits for a tensor on one."""
    done = run(
        "import sys, torch, numbanet.torch\n"
        "numbanet.torch.Encoding(3, {'otype': 'Identity'}, device='cpu')(torch.zeros(1, 3))\n"
        "print([name for name in sys.modules if name.startswith(('numba_cuda', 'numbanet.cuda'))])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_numbers_of_the_bindings():
    Precision = bindings.Precision
    assert bindings.default_loss_scale(Precision.Fp16) == 128
    assert bindings.default_loss_scale(Precision.Fp32) == 1
    preferred = Precision.Fp16 if torch.cuda.is_available() else Precision.Fp32
    assert bindings.preferred_precision() == preferred


def natives():
    grid = dict(HASH)
    network = mlp("FullyFusedMLP", 16, 2)
    precision = bindings.preferred_precision()
    return {
        "NetworkWithInputEncoding": bindings.create_network_with_input_encoding(
            2, 3, grid, network
        ),
        "Network": bindings.create_network(2, 3, network),
        "Encoding": bindings.create_encoding(2, grid, precision),
    }


@pytest.mark.parametrize("name", natives())
def test_native_passes_are_the_modules(name):
    """Outputs are padded, as programs with a copy of tinycudann's modules expect."""
    native = natives()[name]
    module = {
        "NetworkWithInputEncoding": lambda: tcnn.NetworkWithInputEncoding(
            2, 3, HASH, mlp("FullyFusedMLP", 16, 2), device="cpu"
        ),
        "Network": lambda: tcnn.Network(2, 3, mlp("FullyFusedMLP", 16, 2), device="cpu"),
        "Encoding": lambda: tcnn.Encoding(2, HASH, device="cpu"),
    }[name]()
    assert native.n_input_dims() == 2
    assert native.n_output_dims() == (8 if name == "Encoding" else 16)
    assert native.param_precision() == native.output_precision() == bindings.preferred_precision()
    assert native.name() == native.hyperparams()["otype"]
    params = native.initial_params(1337).cpu().requires_grad_()
    assert torch.equal(params, module.params)
    x = torch.rand(40, 2, requires_grad=True)
    context, y = native.fwd(x, params)
    width = module.n_output_dims
    expected = module(x)
    torch.testing.assert_close(y[:, :width], expected, rtol=0, atol=0)
    dl_dy = torch.rand(40, native.n_output_dims())
    dl_dx, dl_dparams = native.bwd(context, x, params, y, dl_dy)
    gradient = dl_dy[:, :width].clone().requires_grad_()
    wanted = torch.autograd.grad(expected, (x, module.params), gradient, create_graph=True)
    torch.testing.assert_close(dl_dx, wanted[0], rtol=0, atol=0)
    torch.testing.assert_close(dl_dparams, wanted[1], rtol=0, atol=0)
    dl_ddx = torch.rand(40, 2)
    found = native.bwd_bwd_input(context, x, params, dl_ddx, dl_dy)
    wanted = torch.autograd.grad(wanted[0], (gradient, module.params, x), dl_ddx)
    torch.testing.assert_close(found[0][:, :width], wanted[0], rtol=0, atol=0)
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=0)
    torch.testing.assert_close(found[2], wanted[2], rtol=0, atol=0)


def test_the_function_that_tinycudanns_modules_call():
    """Some programs call it themselves, with parameters of their own."""
    done = run(
        "import torch, numbanet.torch\n"
        "numbanet.torch.install_as_tinycudann()\n"
        "from tinycudann.modules import _module_function, _torch_precision, _C\n"
        "import tinycudann as tcnn\n"
        "grid = tcnn.Network(3, 2, {'n_neurons': 16, 'n_hidden_layers': 1}, device='cpu')\n"
        "native = grid.native_tcnn_module\n"
        "dtype = _torch_precision(native.param_precision())\n"
        "assert _C.default_loss_scale(native.param_precision()) == grid.loss_scale\n"
        "x = torch.rand(5, 3, requires_grad=True)\n"
        "y = _module_function.apply(native, x, grid.params.to(dtype), grid.loss_scale)\n"
        "assert y.shape == (5, 16) and torch.equal(y[:, :2], grid(x))\n"
        "y[:, :2].sum().backward()\n"
        "assert x.grad.abs().max() > 0 and grid.params.grad.abs().max() > 0\n"
        "_C.free_temporary_memory()"
    )
    assert done.returncode == 0, done.stderr


def test_native_passes_without_gradients():
    native = natives()["Encoding"]
    x, params = torch.rand(40, 2), native.initial_params(1).cpu()
    context, y = native.fwd(x, params)
    assert context is None
    with pytest.raises(RuntimeError, match="context: None"):
        native.bwd(context, x, params, y, torch.ones_like(y))
    x.requires_grad_()
    context, y = native.fwd(x, params)
    dl_dx, dl_dparams = native.bwd(context, x, params, y, torch.ones_like(y))
    assert dl_dx.shape == x.shape
    assert dl_dparams is None


def test_programs_find_their_gpu(monkeypatch):
    """Also one that is newer than all that they look for, below which they take the largest."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: (10, 0))
    assert drop_in.compute_capabilities() == [75, 80, 86, 89, 90, 100]


def test_initial_parameters_are_where_modules_are_made():
    native = bindings.create_encoding(2, HASH, bindings.Precision.Fp32)
    with torch.device("meta"):
        assert native.initial_params(1).device.type == "meta"
