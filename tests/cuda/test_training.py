"""Whole models on the CUDA target: they follow the CPU's, and wait for nothing."""

import sys
import threading
import warnings
from pathlib import Path

import models
import naive
import numpy as np
import pytest
from laws import assert_close
from models import MODELS, batch_of, create_lively

import numbanet

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from emulator.device import EmulatedDevice
from numbanet.cuda.chain import encoding_engine
from numbanet.cuda.chain import engine as chain_engine
from numbanet.cuda.errors import DeviceMemoryError
from numbanet.cuda.memory.arrays import empty, to_device
from numbanet.cuda.optimizer import kernels as optimizer_kernels
from numbanet.cuda.optimizer.kernels import HISTORY
from numbanet.cuda.optimizer.results import Results, Round

# Largest error of outputs and gradients, relative to their largest magnitude.
TOLERANCE = {"float32": 2e-5, "float16": 5e-3, "bfloat16": 4e-2}
precisions = pytest.mark.parametrize("precision", TOLERANCE)
N = 257
# Of Python functions, in a step that comes again, and in inference to given memory.
MOST_CALLS = {"training_step": 16, "inference": 9}
CONFIGS = Path(__file__).parents[2] / "samples" / "configs"


def pair(name, cuda_device, precision="float32"):
    """The same model on both targets."""
    (cpu, twin), (gpu, _) = (
        create_lively(name),
        create_lively(name, device=cuda_device, precision=precision),
    )
    return cpu, gpu, twin


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_what_its_twin_does(cuda_device, name):
    """In float32, all that a step computes: loss, and gradients of parameters and inputs."""
    model, twin = create_lively(name, device=cuda_device, precision="float32")
    params = model.network.params.numpy()
    x = models.inputs_of(twin, N, params=params)
    _, targets = batch_of(name, N)
    y = model.network(x).numpy()
    assert_close(y, twin.inference(x, params), TOLERANCE["float32"])
    dl_dx = empty(x.shape, np.float32, cuda_device)
    loss = model.trainer.training_step(x, targets, run_optimizer=False, dl_dinput=dl_dx)
    trainer = naive.Trainer(*MODELS[name], params)
    value, dl_dinput, dl_dparams = trainer.loss_and_gradients(x, targets)
    assert float(loss) == pytest.approx(value, rel=1e-4)
    assert_close(model.network.gradients.numpy(), dl_dparams, 10 * TOLERANCE["float32"])
    assert_close(dl_dx.numpy(), dl_dinput, 10 * TOLERANCE["float32"])


@precisions
@pytest.mark.parametrize("name", ["hash", "smooth", "one_blob"])
def test_training_follows_the_cpu(cuda_device, precision, name):
    cpu, gpu, _ = pair(name, cuda_device, precision)
    for step in range(4):
        x, targets = batch_of(name, 100, seed=step)
        expected = float(cpu.trainer.training_step(x, targets))
        assert float(gpu.trainer.training_step(x, targets)) == pytest.approx(
            expected, rel=5 * TOLERANCE[precision]
        )
    y = gpu(x).numpy()
    assert_close(y, cpu(x), 20 * TOLERANCE[precision])
    assert gpu.trainer.n_steps == 4


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_older_gpus_add_up_the_grid_in_halves(pytestconfig, capability, precision):
    """Where two float32 cannot be added at once, pairs of halves are, and then collected."""
    if pytestconfig.getoption("device") == "cuda":
        pytest.skip("needs an emulated GPU of another kind")
    cpu, gpu, _ = pair("hash", EmulatedDevice(capability), precision)
    x, targets = batch_of("hash", N)
    for mode, times in (("overwrite", 1), ("overwrite", 1), ("accumulate", 2)):
        for model in (cpu, gpu):
            model.trainer.training_step(x, targets, run_optimizer=False, gradient_mode=mode)
        expected = cpu.network.gradients
        assert_close(gpu.network.gradients.numpy(), expected, 2 * TOLERANCE[precision])
        assert times == 1 or np.abs(expected).max() > 0
    if (precision, capability) == ("float16", (8, 0)):
        expected = second_derivatives(cpu.network, "hash", 33)
        found = second_derivatives(gpu.network, "hash", 33)
        for array, exact in zip(found, expected, strict=True):
            assert_close(array, exact, 4 * TOLERANCE[precision])


@pytest.mark.parametrize("n", [0, 1, 31, 33])
def test_any_batch_size(cuda_device, n):
    cpu, gpu, _ = pair("hash", cuda_device)
    x, targets = batch_of("hash", n)
    losses = [float(model.trainer.training_step(x, targets)) for model in (cpu, gpu)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert gpu.trainer.n_steps == cpu.trainer.n_steps == (n > 0)
    assert gpu(x).shape == (n, 3)
    assert_close(gpu(x).numpy(), cpu(x), 1e-3)


def test_a_step_allocates_nothing_and_waits_for_nothing(cuda_device):
    """After the first one; sums, decisions and counts stay on the device."""
    if not hasattr(cuda_device, "allocations"):
        pytest.skip("the counts are the emulated device's")
    model, _ = create_lively("hash", device=cuda_device)
    x, targets = (to_device(array, cuda_device) for array in batch_of("hash", N))
    float(model.trainer.training_step(x, targets))  # a sample of its inputs is looked at too
    before = cuda_device.allocations, cuda_device.synchronizations
    losses = [model.trainer.training_step(x, targets) for _ in range(3)]
    assert (cuda_device.allocations, cuda_device.synchronizations) == before
    values = [float(loss) for loss in losses]
    assert values == sorted(values, reverse=True)
    assert cuda_device.synchronizations == before[1] + 1


def test_a_step_is_three_launches():
    """Of a grid with a fused network and Adam; before them, gradients are zeroed."""
    device = EmulatedDevice(racecheck=None)
    config = numbanet.load_config(CONFIGS / "config_hash.json")
    model = numbanet.create_from_config(2, 3, config, device=device, precision="float16")
    rng = np.random.default_rng(0)
    x, targets = (to_device(rng.random((33, k), np.float32), device) for k in (2, 3))
    model.trainer.training_step(x, targets)
    for mode, n_zeroed in (("overwrite", 1), ("overwrite", 1), ("accumulate", 0)):
        n_launches, before = len(device.launches), device.n_zeroed
        model.trainer.training_step(x, targets, gradient_mode=mode)
        names = device.launches[n_launches:]
        assert [name.split("_")[0] for name in names] == ["fused", "finish", "Adam"]
        assert device.n_zeroed - before == n_zeroed
    assert model.trainer.n_steps == 4


@pytest.mark.parametrize("name", MOST_CALLS)
def test_a_call_that_comes_again_costs_the_host_little(name):
    """Calls of Python functions, whose time is most of the host's."""
    device = EmulatedDevice()
    device.launch = device.replay = lambda *arguments: None
    model, _ = create_lively("hash", device=device, precision="float16")
    x, targets = (to_device(array, device) for array in batch_of("hash", 33))
    out = empty(targets.shape, np.float32, device)
    arguments = (x, targets) if name == "training_step" else (x, out)
    call, called = getattr(model.trainer, name), []
    for _ in range(4):
        call(*arguments)
    sys.setprofile(lambda frame, event, _: event == "call" and called.append(frame.f_code.co_name))
    try:
        call(*arguments)
    finally:
        sys.setprofile(None)
    assert 0 < len(called) <= MOST_CALLS[name], called


@precisions
@pytest.mark.parametrize("fused", [None, False])
def test_outputs_go_where_they_are_asked_to(cuda_device, precision, fused):
    model, _ = create_lively("hash", device=cuda_device, precision=precision, fused=fused)
    x = to_device(batch_of("hash", 33)[0], cuda_device)
    guarded = to_device(np.full((35, 3), 7, np.float32), cuda_device)
    for call, others in (
        (model.trainer.inference, {}),
        (model.network.inference, {}),
        (model.network.inference, {"params": to_device(model.network.params.numpy(), cuda_device)}),
    ):
        out = guarded[1:34]
        assert call(x, out=out, **others) is out
        np.testing.assert_array_equal(out.numpy(), call(x, **others).numpy())
        assert (guarded.numpy()[[0, -1]] == 7).all()
        assert call(x[:0], out=out[:0], **others).shape == (0, 3)


def test_an_encoding_writes_where_it_is_asked_to(cuda_device):
    encoding = numbanet.create_encoding(2, models.HASH, device=cuda_device, precision="float32")
    x = to_device(batch_of("hash", 33)[0], cuda_device)
    out = empty((33, encoding.n_output_dims), np.float32, cuda_device)
    assert encoding(x, out=out) is out
    np.testing.assert_array_equal(out.numpy(), encoding(x).numpy())


def test_a_place_for_outputs_allocates_nothing(cuda_device, monkeypatch):
    model, _ = create_lively("hash", device=cuda_device)
    x = to_device(batch_of("hash", 33)[0], cuda_device)
    out = empty((33, 3), np.float32, cuda_device)
    model(x, out=out)
    expected = out.numpy()

    def refuse(n_bytes):
        raise AssertionError(f"{n_bytes} bytes were asked for")

    monkeypatch.setattr(cuda_device, "allocate", refuse)
    cuda_device.zero(out.address, out.nbytes)
    model(x, out=out)
    np.testing.assert_array_equal(out.numpy(), expected)


def test_a_place_for_outputs_is_checked(cuda_device):
    model, _ = create_lively("hash", device=cuda_device)
    memory = to_device(np.full(60, 0.5, np.float32), cuda_device)
    x, params = memory[:20].reshape(10, 2), model.network.params
    before = params.numpy()
    for out, error in (
        (empty((10, 2), np.float32, cuda_device), ValueError),
        (empty((9, 3), np.float32, cuda_device), ValueError),
        (empty((30,), np.float32, cuda_device), ValueError),
        (empty((10, 3), np.float16, cuda_device), TypeError),
        (empty((10, 3), np.uint32, cuda_device), TypeError),
        (np.zeros((10, 3), np.float32), TypeError),
        (empty((10, 3), np.float32, EmulatedDevice()), TypeError),
        (memory[19:49].reshape(10, 3), ValueError),
        (params[:30].reshape(10, 3), ValueError),
    ):
        for call in (model.network.inference, model.trainer.inference):
            with pytest.raises(error, match=r"^out: "):
                call(x, out=out)
    np.testing.assert_array_equal(params.numpy(), before)
    np.testing.assert_array_equal(memory.numpy(), np.full(60, 0.5, np.float32))
    others = to_device(before, cuda_device)
    with pytest.raises(ValueError, match=r"^out: shares memory with params"):
        model.network(x, others, out=others[:30].reshape(10, 3))


@precisions
def test_a_step_that_is_not_finite_is_skipped(cuda_device, precision):
    model, _ = create_lively("hash", device=cuda_device, precision=precision)
    x, targets = batch_of("hash", 33)
    model.trainer.training_step(x, targets)
    params, state = model.network.params.numpy(), model.trainer.optimizer_state.numpy()
    for bad in (np.nan, np.inf, -np.inf):
        for broken in ("inputs", "targets"):
            batch = {"inputs": x.copy(), "targets": targets.copy()}
            batch[broken][5, 0] = bad
            loss = model.trainer.training_step(**batch)
            with pytest.warns(RuntimeWarning, match="skipped"):
                float(loss)
    np.testing.assert_array_equal(model.network.params.numpy(), params)
    np.testing.assert_array_equal(model.trainer.optimizer_state.numpy(), state)
    assert (model.network.gradients.numpy() == 0).all()
    assert (model.trainer.n_steps, model.trainer.n_skipped_steps) == (1, 6)
    loss = model.trainer.training_step(x, targets)
    assert np.isfinite(float(loss))
    assert model.trainer.n_steps == 2


@pytest.mark.parametrize("place", [0, 200, -1])
def test_what_was_accumulated_is_looked_at(cuda_device, place):
    """Gradients that the user wrote, or a step left behind, in whichever block's part."""
    model, _ = create_lively("hash", device=cuda_device, precision="float16")
    x, targets = batch_of("hash", 33)
    before, gradients = model.network.params.numpy(), model.network.gradients
    values = np.zeros(gradients.shape, np.float32)
    values[place] = np.nan
    for _ in range(2):
        cuda_device.copy_to_device(gradients.address, values)
        loss = model.trainer.training_step(x, targets, gradient_mode="accumulate")
        with pytest.warns(RuntimeWarning, match="skipped"):
            assert np.isfinite(float(loss))
    np.testing.assert_array_equal(model.network.params.numpy(), before)
    assert (gradients.numpy() == 0).all()
    model.trainer.training_step(x, targets, gradient_mode="accumulate")
    assert (model.trainer.n_steps, model.trainer.n_skipped_steps) == (1, 2)


BOLD = {
    "SGD": {"otype": "SGD", "learning_rate": 1e38},
    "EMA": {"otype": "EMA", "nested": {"otype": "Adam", "learning_rate": 3e38}},
}


@pytest.mark.parametrize("name", BOLD)
def test_a_step_that_overflows_is_taken_back(cuda_device, name):
    config = models.make_config({"otype": "Identity"}, models.mlp("CutlassMLP", 16, 1), "L2")
    config["optimizer"] = BOLD[name]
    model = numbanet.create_from_config(2, 1, config, device=cuda_device, precision="float16")
    trainer, to_host = model.trainer, model.network.target.to_host
    x, external = np.ones((16, 2), np.float32), np.full((16, 1), 100, np.float32)
    was_skipped = False
    for _ in range(6):
        arrays = model.network.params, trainer.optimizer_state
        before, n_skipped = [np.array(to_host(a)) for a in arrays], trainer.n_skipped_steps
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            float(trainer.training_step(x, None, external_dl_dy=external))
        after = [np.array(to_host(a)) for a in arrays]
        assert all(np.isfinite(a).all() for a in after)
        if trainer.n_skipped_steps > n_skipped:
            was_skipped = True
            for old, new in zip(before, after, strict=True):
                np.testing.assert_array_equal(old, new)
    assert was_skipped
    assert trainer.n_steps + trainer.n_skipped_steps == 6


@pytest.mark.parametrize("size", [2e19, 3e38])
def test_a_gradient_whose_square_overflows_is_skipped(cuda_device, size):
    config = models.make_config({"otype": "Identity"}, models.mlp("CutlassMLP", 16, 1), "L2")
    model = numbanet.create_from_config(2, 1, config, device=cuda_device, precision="float32")
    external = np.full((16, 1), size, np.float32)
    before = np.array(model.network.target.to_host(model.network.params))
    loss = model.trainer.training_step(np.ones((16, 2)), None, external_dl_dy=external)
    with pytest.warns(RuntimeWarning, match="skipped"):
        float(loss)
    assert model.trainer.n_skipped_steps == 1
    np.testing.assert_array_equal(model.network.target.to_host(model.network.params), before)


def test_a_step_that_is_not_finite_can_raise(cuda_device):
    model = models.create("hash", device=cuda_device, on_nonfinite="raise")
    x, targets = batch_of("hash", 33)
    targets[3] = np.nan
    with pytest.raises(FloatingPointError, match="as they were"):
        model.trainer.training_step(x, targets)
    assert model.trainer.n_skipped_steps == 1


def test_large_gradients_overflow_float16_and_are_not_trained_on(cuda_device):
    """Finite in float32, infinite where the kernels keep it in halves."""
    model = models.create("hash", device=cuda_device, precision="float16")
    x, targets = batch_of("hash", 33)
    loss = model.trainer.training_step(x, targets * np.float32(1e9))
    with pytest.warns(RuntimeWarning, match="skipped"):
        float(loss)
    assert model.trainer.n_steps == 0


def test_losses_are_kept_until_they_are_read(cuda_device):
    model, _ = create_lively("hash", device=cuda_device)
    x, targets = (to_device(array, cuda_device) for array in batch_of("hash", 33))
    training = model.trainer._training
    kept = [model.trainer.training_step(x, targets) for _ in range(2)]
    first = [float(loss) for loss in kept]
    late = model.trainer.training_step(x, targets)
    assert not late._result.is_known
    training._results.resume(HISTORY)  # as if many steps had been made since
    training._set_counter(optimizer_kernels.N_RESULTS, HISTORY)
    last = [model.trainer.training_step(x, targets) for _ in range(4)]
    assert late._result.is_known  # their places have other losses now
    assert not last[0]._result.is_known
    values = [*first, *map(float, (late, *last))]
    assert values == sorted(values, reverse=True)
    assert [float(loss) for loss in kept] == first


def test_a_step_of_another_thread_while_a_loss_is_read(cuda_device, monkeypatch):
    expected, _ = create_lively("hash", device=cuda_device)
    model, _ = create_lively("hash", device=cuda_device)
    x, targets = batch_of("hash", N)
    losses = [float(expected.trainer.training_step(x, targets)) for _ in range(2)]
    first, others = model.trainer.training_step(x, targets), []

    def step():
        others.append(model.trainer.training_step(x, targets))

    thread, copy = threading.Thread(target=step), cuda_device.copy_to_host

    def copy_and_step(host, address):
        copy(host, address)
        if thread.ident is None:
            thread.start()
            thread.join(0.5)

    monkeypatch.setattr(cuda_device, "copy_to_host", copy_and_step)
    found = [float(first)]
    thread.join()
    found.append(float(others[0]))
    assert found == pytest.approx(losses, rel=1e-3)


def test_results_that_nobody_holds_are_not_read(cuda_device, monkeypatch):
    results, reads = Results(cuda_device), []
    monkeypatch.setattr(Round, "read", lambda its_round: reads.append(its_round.n_asked))
    first = results.next()
    others = [results.next()._round for _ in range(HISTORY)]
    assert reads == [HISTORY]
    assert all(other is first._round for other in others[:-1])
    assert others[-1] is not first._round
    del first, others
    for _ in range(2 * HISTORY):
        results.next()
    assert reads == [HISTORY]


@precisions
def test_who_writes_to_the_parameters_changes_the_model(cuda_device, precision):
    model, _ = create_lively("hash", device=cuda_device, precision=precision)
    x, _ = batch_of("hash", 33)
    before = model.network(x).numpy()
    held = model.network.params
    values = held.numpy()
    cuda_device.copy_to_device(held.address, (2 * values).astype(np.float32))
    doubled = model.network(x).numpy()
    assert not np.allclose(doubled, before)
    part = model.network.named_parameters()["network.0"]
    del held
    cuda_device.copy_to_device(model.network.parameters.master.address, values)
    np.testing.assert_array_equal(model.network(x).numpy(), before)
    del part
    model.network.params = 2 * values
    np.testing.assert_array_equal(model.network(x).numpy(), doubled)
    np.testing.assert_array_equal(model.network(x, values).numpy(), before)


def test_batches_are_cut_into_slabs(cuda_device, monkeypatch):
    """A batch larger than one launch gives what a small one gives, also where samples count."""
    for module in (encoding_engine, chain_engine):
        monkeypatch.setattr(module, "MOST_ROWS", 100)
    for name in ("hash", "smooth"):
        cpu, gpu, _ = pair(name, cuda_device)
        x, targets = batch_of(name, N)
        losses = [float(model.trainer.training_step(x, targets)) for model in (cpu, gpu)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        assert_close(gpu.network.gradients.numpy(), cpu.network.gradients, 1e-4)
        assert_close(gpu(x).numpy(), cpu(x), 1e-3)


def second_derivatives(network, name, n):
    """What double_backward returns, and the gradients of the parameters."""
    n_input_dims, n_output_dims, _ = MODELS[name]
    rng = np.random.default_rng(5)
    x = batch_of(name, n)[0]
    dl_dy, dl_ddx = rng.normal(size=(n, n_output_dims)), rng.normal(size=(n, n_input_dims))
    _, context = network.forward(x)
    found = network.double_backward(context, dl_dy, dl_ddx)
    return [np.asarray(network.target.to_host(array)) for array in (*found, network.gradients)]


@precisions
@pytest.mark.parametrize("name", ["smooth", "composite", "linear", "biased"])
def test_second_derivatives_are_the_cpus(cuda_device, precision, name):
    cpu, gpu, _ = pair(name, cuda_device, precision)
    for n in (0, 1, 77):
        expected = second_derivatives(cpu.network, name, n)
        for array, exact in zip(second_derivatives(gpu.network, name, n), expected, strict=True):
            assert_close(array, exact, 4 * TOLERANCE[precision])


def test_second_derivatives_in_slabs(cuda_device, monkeypatch):
    for module in (encoding_engine, chain_engine):
        monkeypatch.setattr(module, "MOST_ROWS", 100)
    cpu, gpu, _ = pair("smooth", cuda_device)
    second_derivatives(gpu.network, "smooth", 30)  # the buffers are made anew for more
    expected = second_derivatives(cpu.network, "smooth", N)
    for array, exact in zip(second_derivatives(gpu.network, "smooth", N), expected, strict=True):
        assert_close(array, exact, 4 * TOLERANCE["float32"])


def test_random_corners_are_the_cpus(cuda_device, monkeypatch):
    monkeypatch.setattr(encoding_engine, "MOST_ROWS", 100)
    config = {**models.HASH, "stochastic_interpolation": True}
    x = batch_of("hash", N)[0]
    dl_dy = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
    gradients = []
    for options in ({"device": "cpu"}, {"device": cuda_device, "precision": "float32"}):
        encoding = numbanet.create_encoding(2, config, **options)
        _, context = encoding.forward(x)
        encoding.backward(context, dl_dy)
        gradients.append(np.asarray(encoding.gradients))
    assert_close(gradients[1], gradients[0], 1e-5)


@pytest.mark.parametrize("name", ["hash", "narrow"])
def test_gradients_from_outside(cuda_device, name):
    cpu, gpu, _ = pair(name, cuda_device, "float16")
    x, targets = batch_of(name, 33)
    dl_dy = np.random.default_rng(1).normal(size=targets.shape).astype(np.float32)
    for model in (cpu, gpu):
        loss = model.trainer.training_step(
            x, None, external_dl_dy=dl_dy, run_optimizer=False, gradient_mode="accumulate"
        )
        assert float(loss) == 0
    assert_close(gpu.network.gradients.numpy(), cpu.network.gradients, 2e-2)
    _, context = gpu.network.forward(x)
    dl_dx = gpu.network.backward(context, dl_dy, gradient_mode="ignore").numpy()
    _, context = cpu.network.forward(x)
    assert_close(dl_dx, cpu.network.backward(context, dl_dy, gradient_mode="ignore"), 2e-2)
    dl_dx = gpu.network.input_gradient(0, x).numpy()
    assert_close(dl_dx, cpu.network.input_gradient(0, x), 2e-2)


def test_densities_weigh_the_loss(cuda_device):
    cpu, gpu, _ = pair("hash", cuda_device)
    x, targets = batch_of("hash", 33)
    pdf = np.random.default_rng(2).uniform(0.1, 2, targets.shape)
    losses = [float(model.trainer.training_step(x, targets, pdf)) for model in (cpu, gpu)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_learning_rate_changes_compile_nothing(cuda_device):
    cpu, gpu, _ = pair("hash", cuda_device)
    x, targets = batch_of("hash", 33)
    for rate in (1e-2, 1e-3, 0.5):
        cpu.trainer.learning_rate = gpu.trainer.learning_rate = rate
        for model in (cpu, gpu):
            model.trainer.training_step(x, targets)
    assert_close(gpu.network.params.numpy(), cpu.network.params, 1e-4)
    assert len(gpu.trainer._training._kernels) == 1


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_snapshots_move_between_targets(cuda_device, precision, tmp_path):
    pytest.importorskip("safetensors")
    _, gpu, _ = pair("hash", cuda_device, precision)
    x, targets = batch_of("hash", 33)
    gpu.trainer.training_step(x, targets)
    gpu.save(tmp_path / "model.safetensors")
    loaded = numbanet.load(tmp_path / "model.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.network.params, gpu.network.params.numpy())
    np.testing.assert_array_equal(
        loaded.trainer.optimizer_state, gpu.trainer.optimizer_state.numpy()
    )
    assert loaded.trainer.n_steps == 1
    back = numbanet.load(tmp_path / "model.safetensors", device=cuda_device, precision=precision)
    np.testing.assert_array_equal(back(x).numpy(), gpu(x).numpy())


def test_no_race_in_any_memory(pytestconfig):
    """Every access of a step to global memory is ordered, or atomic."""
    if pytestconfig.getoption("device") == "cuda":
        pytest.skip("the emulator looks for races; on a GPU compute-sanitizer does")
    device = EmulatedDevice(racecheck="global")
    model, _ = create_lively("hash", device=device)
    x, targets = batch_of("hash", N)
    model.trainer.training_step(x, targets, dl_dinput=empty(x.shape, np.float32, device))
    assert np.abs(second_derivatives(model.network, "hash", N)[2]).max() > 0
    assert np.isfinite(model(x).numpy()).all()


def test_initial_parameters_are_those_of_the_cpu(cuda_device):
    cpu, gpu = models.create("hash"), models.create("hash", device=cuda_device)
    np.testing.assert_array_equal(gpu.network.params.numpy(), cpu.network.params)
    assert gpu.network.precision == "float16"
    assert gpu.network.device.startswith("cuda")


def test_a_step_that_fails_shifts_no_later_loss(cuda_device, monkeypatch):
    """Results are numbered by the host and by the device, which must agree."""
    x, targets = batch_of("hash", 33)
    expected, _ = create_lively("hash", device=cuda_device, precision="float16")
    model, _ = create_lively("hash", device=cuda_device, precision="float16")

    def fail(*arguments, **options):
        raise ValueError("no step")

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(model.network.engine, "forward_backward", fail)
            with pytest.raises(ValueError, match="no step"):
                model.trainer.training_step(x, targets)
        first, second = (each.trainer.training_step(x, targets) for each in (expected, model))
        assert float(second) == pytest.approx(float(first), rel=1e-6)
    assert model.trainer.n_steps == 2


def test_a_model_survives_running_out_of_memory(cuda_device, monkeypatch):
    """What a captured step used is gone then, and must be made anew."""
    x, targets = (to_device(array, cuda_device) for array in batch_of("hash", 33))
    model, _ = create_lively("hash", device=cuda_device, precision="float32")
    for _ in range(3):
        model.trainer.training_step(x, targets)

    def refuse(*arguments, **options):
        raise DeviceMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(chain_engine, "Layers", refuse)
        with pytest.raises(DeviceMemoryError):
            model(batch_of("hash", N)[0])
    losses = [float(model.trainer.training_step(x, targets)) for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert model.trainer.n_steps == 6
