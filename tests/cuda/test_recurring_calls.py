"""Recurring steps and inference have the results of the same calls that are checked anew."""

import threading

import numpy as np
import pytest
from models import MODELS, batch_of

import numbanet

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet.communicator import Alone
from numbanet.cuda.inference import RecurringInference
from numbanet.cuda.memory.arrays import empty, to_device
from numbanet.cuda.optimizer.training import CudaTraining
from numbanet.cuda.ranks import pieces

N = 33
OWN = CudaTraining.again, RecurringInference.again


class Course:
    """A model that learns in deterministic steps with the same arrays, and its results."""

    def __init__(self, device, **optimizer):
        n_inputs, n_outputs, config = MODELS["hash"]
        if optimizer:
            config = config | {"optimizer": optimizer}
        self.device = device
        self.model = numbanet.create_from_config(
            n_inputs, n_outputs, config, device=device, precision="float16", deterministic=True
        )
        self.network, self.trainer = self.model.network, self.model.trainer
        self.x, self.targets = (to_device(array, device) for array in batch_of("hash", N))
        self.y = empty((N, n_outputs), np.float32, device)
        self.found = []

    def step(self, **options):
        loss = self.trainer.training_step(self.x, self.targets, **options)
        self.found.append(np.float32(loss))

    def calls(self, n=3):
        for _ in range(n):
            self.step()
            self.found.append(self.network(self.x, out=self.y).numpy())
            self.found.append(self.network(self.x).numpy())

    def end(self):
        return [*self.found, self.network.params.numpy(), self.trainer.n_steps]


def rate(course):
    course.trainer.update_hyperparams({"optimizer": {"learning_rate": 0.05}})


def loss(course):
    course.trainer.update_hyperparams({"loss": {"otype": "L1"}})


def params_written(course):
    params = course.network.params
    for value in (0.25, -0.5):
        values = np.full(params.shape, value, np.float32)
        course.device.copy_to_device(params.address, values)
        course.calls(1)


def params_assigned(course):
    course.network.params = np.full(course.network.n_params, 0.125, np.float32)


def accumulated(course):
    course.step(gradient_mode="accumulate")
    course.calls(1)
    course.step(gradient_mode="accumulate")


def ignored(course):
    course.step(gradient_mode="ignore")


def without_optimizer(course):
    course.step(run_optimizer=False)


def leveled(course):
    for _ in range(3):
        course.step(max_level=0.5)
        course.found.append(course.network(course.x, max_level=0.5).numpy())


def weighted(course):
    pdf = to_device(np.full((N, 3), 0.5, np.float32), course.device)
    for _ in range(3):
        course.found.append(np.float32(course.trainer.training_step(course.x, course.targets, pdf)))


def other_sums(course):
    course.network.deterministic = False
    course.network.deterministic = True


def not_finite(course):
    before = course.targets.numpy()
    course.device.copy_to_device(course.targets.address, np.full_like(before, np.nan))
    skipped = course.trainer.training_step(course.x, course.targets)
    with pytest.warns(RuntimeWarning, match="skipped"):
        assert np.isnan(float(skipped))
    course.device.copy_to_device(course.targets.address, before)
    assert course.trainer.n_skipped_steps == 1


def counted_anew(course):
    course.trainer.n_steps = 1


def another_trainer(course):
    again = numbanet.Trainer(course.network, course.trainer.optimizer, course.trainer.loss)
    for _ in range(4):
        course.found.append(np.float32(again.training_step(course.x, course.targets)))
        course.step()


def parameters_moved(course):
    """As by another trainer, whose ranks divide them."""
    course.network.parameters.keep_part(0, course.network.n_params, lambda values: None)


def other_sizes(course):
    x, targets = (to_device(array, course.device) for array in batch_of("hash", 3 * N))
    course.found.append(np.float32(course.trainer.training_step(x, targets)))
    course.found.append(course.network(x).numpy())


def memory_freed(course):
    course.network.engine.release()


def arrays_freed(course):
    """Others may lie where they were."""
    for seed in range(1, 4):
        del course.x, course.targets, course.y
        arrays = batch_of("hash", N, seed=seed)
        course.x, course.targets = (to_device(array, course.device) for array in arrays)
        course.y = empty((N, 3), np.float32, course.device)
        course.calls(1)


BETWEEN = (
    *(rate, loss, params_written, params_assigned, accumulated, ignored, without_optimizer),
    *(leveled, weighted, other_sums, not_finite, counted_anew, another_trainer, other_sizes),
    *(memory_freed, arrays_freed, parameters_moved),
)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def in_full(monkeypatch):
    """Have all calls checked anew."""

    def forget():
        monkeypatch.setattr(CudaTraining, "again", lambda *arguments: None)
        monkeypatch.setattr(RecurringInference, "again", lambda *arguments: None)

    return forget


@pytest.fixture
def replayed(monkeypatch):
    """Names of the calls that were found again."""
    names = []
    for name, (owner, own) in {
        "step": (CudaTraining, OWN[0]), "inference": (RecurringInference, OWN[1])
    }.items():  # fmt: skip

        def again(*arguments, name=name, own=own):
            found = own(*arguments)
            if found is not None:
                names.append(name)
            return found

        monkeypatch.setattr(owner, "again", again)
    return names


@pytest.mark.parametrize("between", BETWEEN, ids=lambda function: function.__name__)
def test_what_changes_between_calls_counts(cuda_device, replayed, in_full, between):
    ends = []
    for _ in range(2):
        course = Course(cuda_device)
        course.calls(5)
        between(course)
        course.calls(5)
        ends.append(course.end())
        in_full()
    assert_same(*ends)
    assert {"step", "inference"} <= set(replayed)


def test_averaged_weights_count(cuda_device, replayed, in_full):
    ends = []
    for _ in range(2):
        course = Course(cuda_device, otype="EMA", decay=0.9, nested={"otype": "Adam"})
        for options in ({}, {"use_inference_params": True}, {}):
            course.calls()
            course.step(**options)
            course.found.append(course.trainer.inference(course.x).numpy())
        ends.append(course.end())
        in_full()
    assert_same(*ends)
    assert {"step", "inference"} <= set(replayed)


def test_a_step_that_is_not_finite_raises_if_asked(cuda_device, replayed):
    course = Course(cuda_device)
    course.calls()
    course.trainer.on_nonfinite = "raise"
    values = course.targets.numpy()
    values[0, 0] = np.inf
    course.device.copy_to_device(course.targets.address, values)
    replayed.clear()
    with pytest.raises(FloatingPointError):
        course.step()
    assert replayed == ["step"]


class TwoAlike(Alone):
    """Rank 0 of two that do the same, and the copies of their parts on a device."""

    size, is_queued = 2, True

    def __init__(self, device):
        super().__init__(pieces=4)
        self._device, self.n_gathered = device, 0

    def gather(self, numbers):
        self.n_gathered += 1
        return np.stack([numbers, numbers])

    def fill(self, array, bounds):
        n_bytes = bounds[1] * array.dtype.itemsize
        self._device.copy(array.address + n_bytes, array.address, n_bytes)


@pytest.mark.parametrize("comm", [TwoAlike, lambda device: Alone(pieces=4)], ids=["two", "one"])
def test_pieces_recur_and_several_ranks_are_asked_before_each(
    cuda_device, replayed, monkeypatch, comm
):
    comm = comm(cuda_device)
    monkeypatch.setattr(pieces, "collectives", lambda device, comm: comm)
    n_inputs, n_outputs, config = MODELS["hash"]
    model = numbanet.create_from_config(
        n_inputs, n_outputs, config, device=cuda_device, precision="float16", comm=comm
    )
    x, targets = (to_device(array, cuda_device) for array in batch_of("hash", 32))
    for k in range(4):
        before, replayed[:] = getattr(comm, "n_gathered", 0), []
        model.trainer.training_step(x, targets)
        if comm.size > 1:
            assert comm.n_gathered > before
        else:
            assert replayed == ["step"] * (k > 2)


def test_arrays_at_known_places_are_refused_where_they_do_not_fit(cuda_device):
    course = Course(cuda_device)
    course.calls()
    with pytest.raises(ValueError, match="inputs"):
        course.network(course.x.reshape(2 * N))
    with pytest.raises(ValueError, match="out"):
        course.network(course.x, out=course.y.reshape(3, N))
    with pytest.raises(ValueError, match="targets"):
        course.trainer.training_step(course.x, course.targets.reshape(3, N))
    with pytest.raises(ValueError, match="targets"):
        course.trainer.training_step(course.x, course.targets[:-1])
    joined = empty((2 * N * 3,), np.float32, cuda_device)
    x, overlapping = joined[: N * 2].reshape(N, 2), joined[N : N * 4].reshape(N, 3)
    for _ in range(3):
        course.network(x, out=joined[N * 2 : N * 5].reshape(N, 3))
    with pytest.raises(ValueError, match="shares memory"):
        course.network(x, out=overlapping)


def test_threads_copy_while_another_one_captures(cuda_device):
    device, values = cuda_device, np.arange(8, dtype=np.float32)
    array, copies = to_device(values, device), []

    def copy():
        copies.append(array.numpy())
        copies.append(to_device(2 * values, device).numpy())

    def queue():
        thread = threading.Thread(target=copy)
        thread.start()
        thread.join()
        device.zero(array.address, array.nbytes)

    graph = device.capture(queue)
    assert_same([*copies, array.numpy()], [values, 2 * values, values])
    device.replay(graph)
    assert not array.numpy().any()


def test_threads_take_turns(cuda_device):
    course = Course(cuda_device)
    course.calls()
    expected = course.network(course.x).numpy()
    course.step(run_optimizer=False)
    failures = []

    def infer():
        try:
            for _ in range(5):
                np.testing.assert_array_equal(course.network(course.x).numpy(), expected)
        except BaseException as error:  # told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=infer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    before = course.trainer.n_steps
    threads = [threading.Thread(target=course.step) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert course.trainer.n_steps == before + 3
