"""Training loops that are written once: steps, schedules, callbacks, interruptions."""

import itertools
import json
import signal
import sys

import models
import numpy as np
import pytest

import numbanet
from numbanet import callbacks, schedules
from numbanet.history import loss_due

BATCH = models.batch_of("hash", 20)
QUIET = {"progress": False}


@pytest.fixture
def model():
    return models.create("hash")


def batch():
    return BATCH


def test_it_does_what_a_loop_does(model):
    other = models.create("hash")
    losses = [float(other.trainer.training_step(*BATCH)) for _ in range(12)]
    history = numbanet.fit(model.trainer, batch, steps=12, **QUIET)
    assert history.losses == list(enumerate(losses, 1))
    assert history.finished
    assert history.loss == losses[-1] < losses[0]
    assert history.timed_steps == 11  # without the first
    assert history.steps_per_second == 11 / history.training_seconds
    np.testing.assert_array_equal(model.network.params, other.network.params)


def test_the_generator_gives_every_step(model):
    seen = []
    for step in numbanet.training(model, batch, steps=5):
        seen.append((step.number, float(step.loss), step.n_steps))
    assert [number for number, *_ in seen] == [1, 2, 3, 4, 5]
    assert seen[-1][1] < seen[0][1]
    assert {n for *_, n in seen} == {5}


def test_a_training_goes_on_where_it_ended(model, tmp_path):
    whole = models.create("hash")
    schedule = schedules.cosine(1e-2, 12)
    everything = numbanet.fit(whole, batch, steps=12, learning_rate=schedule, **QUIET)
    path = tmp_path / "model.safetensors"
    checkpoint = callbacks.Checkpoint(path, every=5, metadata={"name": "mine"})
    options = {"learning_rate": schedule, **QUIET}
    numbanet.fit(model, batch, steps=7, callbacks=[checkpoint], **options)
    again = numbanet.load(path, device="cpu")
    assert again.metadata["name"] == "mine"
    history = numbanet.History.from_json(again.metadata["history"])
    assert history.step == again.trainer.n_steps == 7
    numbanet.fit(again, batch, steps=12, history=history, **options)
    assert history.losses == everything.losses
    np.testing.assert_array_equal(again.network.params, whole.network.params)


@pytest.mark.parametrize(
    "source",
    [
        lambda: [BATCH, BATCH, BATCH],
        lambda: (BATCH for _ in range(3)),
        lambda: [{"inputs": BATCH[0], "targets": BATCH[1]}] * 3,
        lambda: [(*BATCH, np.ones_like(BATCH[1]))] * 3,
        lambda: iter([BATCH, BATCH, BATCH, None]).__next__,
        lambda: iter([BATCH, BATCH, BATCH]).__next__,
    ],
)
def test_batches_may_end(model, source):
    history = numbanet.fit(model, source(), steps=9, **QUIET)
    assert history.step == 3
    assert history.end == "no more batches"
    assert not history.finished


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (None, "only for a learner with a method step"),
        (5, "neither a function nor an iterable"),
        ([BATCH[0]], "use .inputs, targets."),
        (lambda: "xy" * 4, "use .inputs, targets."),
    ],
)
def test_batches_that_are_none(model, batches, message):
    with pytest.raises(TypeError, match=message):
        numbanet.fit(model, batches, steps=3, **QUIET)
    assert model.trainer.n_steps == 0


def test_arguments_that_are_not_allowed(model):
    for steps in (-1, 2.5, "3", None, True, 2**31):
        with pytest.raises(ValueError, match=r"steps: .* is not allowed"):
            numbanet.fit(model, batch, steps=steps, **QUIET)
    with pytest.raises(TypeError, match="expected a Trainer or a model, got"):
        numbanet.fit(object(), batch, steps=3, **QUIET)
    for wrong in (5, callbacks.Callback, "progress"):
        with pytest.raises(TypeError, match="neither a Callback nor a function"):
            numbanet.fit(model, batch, steps=3, callbacks=[wrong], **QUIET)
    for callback in (callbacks.Callback(), None):
        with pytest.raises(TypeError, match="is no list of them"):
            numbanet.fit(model, batch, steps=3, callbacks=callback)
    with pytest.raises(TypeError, match="history: expected a History"):
        numbanet.fit(model, batch, steps=3, history={"step": 1}, **QUIET)
    for rate in ("1", lambda step: None, lambda step: 1j, lambda step: [1.0]):
        with pytest.raises(TypeError, match="learning_rate: expected a number, got"):
            numbanet.fit(model, batch, steps=3, learning_rate=rate, **QUIET)
    for rate in (-1.0, float("nan"), float("inf"), lambda step: -1.0):
        with pytest.raises(numbanet.ConfigError, match="learning_rate"):
            numbanet.fit(model, batch, steps=3, learning_rate=rate, **QUIET)
    assert model.trainer.n_steps == 0


def test_a_learner_of_ones_own(model):
    class Learner:
        trainer = model.trainer

        def step(self):
            return model.trainer.training_step(*BATCH)

    learner = Learner()
    assert numbanet.fit(learner, steps=4, learning_rate=1e-3, **QUIET).step == 4
    assert model.trainer.learning_rate == 1e-3


def test_schedules():
    rate = schedules.cosine(2.0, 100, least=1.0)
    assert [rate(step) for step in (0, 50, 100, 1000)] == [2, 1.5, 1, 1]
    rate = schedules.warm_up(4, 1.0)
    assert [rate(step) for step in (0, 1, 2, 3, 4, 9)] == [0.25, 0.5, 0.75, 1, 1, 1]
    rate = schedules.warm_up(4, schedules.cosine(1.0, 10))
    assert [rate(3), rate(4), rate(9), rate(14)] == [1, 1, 0.5, 0]
    rate = schedules.piecewise({500: 1e-3, 0: 1e-2})
    assert [rate(step) for step in (0, 499, 500, 10**6)] == [1e-2, 1e-2, 1e-3, 1e-3]
    rate = schedules.exponential(1.0, 0.5, 10)
    assert [rate(step) for step in (0, 10, 20)] == [1, 0.5, 0.25]
    assert rate(5) == pytest.approx(0.5**0.5)
    with pytest.raises(ValueError, match="has no rate for step 0"):
        schedules.piecewise({1: 1e-3})
    with pytest.raises(ValueError, match="n_steps: 0"):
        schedules.cosine(1.0, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.cosine(-1.0, 5),
        lambda: schedules.cosine(1.0, 5, least=float("nan")),
        lambda: schedules.cosine(1.0, "5"),
        lambda: schedules.warm_up(2.5, 1.0),
        lambda: schedules.warm_up(3, None),
        lambda: schedules.piecewise([(0, 1.0)]),
        lambda: schedules.piecewise({0: 1.0, -3: 2.0}),
        lambda: schedules.piecewise({0: 1.0, 0.5: 2.0}),
        lambda: schedules.piecewise({0: 1.0, 5: float("inf")}),
        lambda: schedules.exponential(1.0, -0.5, 2),
        lambda: schedules.exponential(float("nan"), 0.5),
    ],
)
def test_schedules_that_are_none(make):
    with pytest.raises((TypeError, ValueError), match=r"is not allowed|expected a"):
        make()


def test_a_schedule_is_in_force(model):
    rates = []
    options = {"learning_rate": lambda step: 10.0**-step}
    for step in numbanet.training(model, batch, steps=4, **options):
        rates.append(step.learning_rate)
    assert rates == pytest.approx([1, 0.1, 0.01, 0.001])


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({"otype": "Adam", "learning_rate": 0.25}, [(0.25,)] * 3),
        ({"otype": "SGD", "learning_rate": 0.5}, [(0.5,)] * 3),
        (
            {"otype": "EMA", "nested": {"otype": "ExponentialDecay", "decay_base": 0.5,
             "decay_start": 1, "decay_interval": 1, "nested": {"learning_rate": 0.5}}},
            [(0.5,), (0.25,), (0.125,)],
        ),
        (
            {"otype": "Composite", "learning_rate": 0.5, "nested": [
                {"n_params_to_optimize": None, "otype": "SGD", "learning_rate": 0.5},
                {"n_params_to_optimize": 1, "otype": "Adam", "learning_rate": 0.25}]},
            [(0.25, 0.125)] * 3,
        ),
        (
            {"otype": "WarmUp", "n_steps": 2, "nested": {
                "otype": "ParamGroups", "groups": [{"parts": "network.*", "weight_decay": 1.0}],
                "nested": {"otype": "Muon", "learning_rate": 0.5, "adam_learning_rate": 0.25}}},
            [(0.25, 0.125), (0.5, 0.25), (0.5, 0.25)],
        ),
    ],
    ids=["Adam", "SGD", "decay", "parts", "groups"],
)  # fmt: skip
def test_rates_in_force(optimizer, expected):
    n_params = models.create("hash").network.n_params
    for part in optimizer["nested"] if isinstance(optimizer.get("nested"), list) else ():
        part["n_params_to_optimize"] = part["n_params_to_optimize"] or n_params - 1
    config = {**models.config_of("hash"), "optimizer": optimizer}
    trainer = numbanet.create_from_config(2, 3, config, device="cpu").trainer
    found = []
    for k in range(3):
        found.append(trainer.learning_rates_in_force)
        trainer.n_steps = k + 1
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_evaluations(model):
    calls = itertools.count(1)
    evaluation = callbacks.Evaluation(lambda: {"psnr": next(calls)}, every=4)
    more = callbacks.Evaluation(lambda: -1, every=5)
    history = numbanet.fit(model, batch, steps=10, callbacks=[evaluation, more], **QUIET)
    assert history.metrics == [
        (4, {"psnr": 1.0}), (5, {"evaluation": -1.0}), (8, {"psnr": 2.0}),
        (10, {"psnr": 3.0, "evaluation": -1.0}),
    ]  # fmt: skip
    assert history.metric("psnr") == 3
    assert np.isnan(history.metric("ssim"))


def test_early_stop(model):
    values = iter([1, 2, 3, 3, 3.05, 2, 9])
    evaluation = callbacks.Evaluation(lambda: next(values), every=1, name="psnr")
    stop = callbacks.EarlyStop("psnr", patience=2, least_change=0.1, highest=True)
    history = numbanet.fit(model, batch, steps=100, callbacks=[evaluation, stop], **QUIET)
    assert history.step == 6
    assert history.end == "psnr no longer improves: 3 was the best"
    stop = callbacks.EarlyStop(patience=3, least_change=10)
    assert numbanet.fit(model, batch, steps=50, callbacks=[stop], **QUIET).step == 5


def test_an_early_stop_waits_for_its_own_metric(model):
    values = itertools.count()
    evaluations = [
        callbacks.Evaluation(lambda: next(values), every=8, name="psnr"),
        callbacks.Evaluation(lambda: 0, every=1, name="other"),
    ]
    stop = callbacks.EarlyStop("psnr", patience=2, highest=True)
    for order in ([*evaluations, stop], [stop, *evaluations]):
        history = numbanet.fit(model, batch, steps=24, callbacks=order, **QUIET)
        assert history.finished


def test_a_metric_that_never_comes(model):
    for more in ([], [callbacks.Evaluation(lambda: 0, every=1, name="psnr")]):
        stop = callbacks.EarlyStop("pnsr", patience=2)
        with pytest.warns(RuntimeWarning, match="'pnsr', of which no value ever came"):
            assert numbanet.fit(model, batch, steps=5, callbacks=[*more, stop], **QUIET).step == 5
    numbanet.fit(model, batch, steps=0, callbacks=[stop], **QUIET)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: callbacks.EarlyStop(patience=-1), "patience: -1"),
        (lambda: callbacks.EarlyStop(patience=1.5), "patience: 1.5"),
        (lambda: callbacks.EarlyStop(least_change=float("nan")), "least_change: nan"),
        (lambda: callbacks.EarlyStop(3), "metric: expected a name"),
        (lambda: callbacks.Evaluation(5), "function: 5 cannot be called"),
        (lambda: callbacks.Evaluation(min, every=True), "every: True"),
        (lambda: callbacks.Evaluation(min, every=0.5), "every: 0.5"),
        (lambda: callbacks.Checkpoint(5), "str, bytes or os.PathLike"),
    ],
)
def test_options_of_callbacks(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_an_evaluation_that_gives_no_number(model):
    for wrong in (None, "5", np.zeros(2)):
        evaluation = callbacks.Evaluation(lambda wrong=wrong: wrong, every=np.int64(1), name="psnr")
        with pytest.raises(TypeError, match="psnr: expected a number, got"):
            numbanet.fit(model, batch, steps=3, callbacks=[evaluation], **QUIET)


def test_functions_are_callbacks_and_may_stop(model):
    def watch(run):
        if run.step == 3:
            run.stop("seen enough")

    history = numbanet.fit(model, batch, steps=10, callbacks=[watch], **QUIET)
    assert (history.step, history.end) == (3, "seen enough")


class Recorder(callbacks.Callback):
    def __init__(self):
        self.calls = []

    def begin(self, run):
        self.calls.append("begin")

    def after_step(self, run):
        self.calls.append(run.step)

    def end(self, run):
        self.calls.append(run.history.end)


def test_callbacks_end_whatever_happens(model):
    recorder = Recorder()
    for step in numbanet.training(model, batch, steps=9, callbacks=[recorder]):
        if step.number == 2:
            break
    assert recorder.calls == ["begin", 1, 2, "left"]
    recorder, x = Recorder(), BATCH[0]
    with pytest.raises(ValueError, match="targets"):
        numbanet.fit(model, [BATCH, (x, x[:, :1])], steps=9, callbacks=[recorder], **QUIET)
    assert recorder.calls == ["begin", 1, "ValueError"]


def test_each_callback_ends_where_another_one_fails(model):
    class Failing(callbacks.Callback):
        def end(self, run):
            raise OSError("the disk is full")

    first, last = Recorder(), Recorder()
    with pytest.raises(OSError, match="the disk is full"):
        numbanet.fit(model, batch, steps=1, callbacks=[first, Failing(), last], **QUIET)
    assert first.calls == last.calls == ["begin", 1, ""]


def test_a_checkpoint_is_not_replaced_where_nothing_was_learned(model, tmp_path):
    path = tmp_path / "model.safetensors"
    checkpoint = callbacks.Checkpoint(path)
    numbanet.fit(model, batch, steps=2, callbacks=[checkpoint], **QUIET)
    before = path.read_bytes()

    def broken():
        raise RuntimeError("no data")

    new, options = models.create("hash"), {"callbacks": [checkpoint], **QUIET}
    with pytest.raises(RuntimeError, match="no data"):
        numbanet.fit(new, broken, steps=2, **options)
    numbanet.fit(new, batch, steps=0, **options)
    numbanet.fit(new, [], steps=2, **options)
    assert path.read_bytes() == before
    numbanet.fit(models.create("hash"), batch, steps=2, callbacks=[checkpoint], **QUIET)
    assert path.read_bytes() != before  # as many steps, by another model


def test_what_needs_a_trainer_says_so(tmp_path):
    class Learner:
        def step(self):
            return 1.0

    board = pytest.importorskip("tensorboardX") and callbacks.TensorBoard(tmp_path / "events")
    for each in (board, callbacks.Checkpoint(tmp_path / "model.safetensors")):
        with pytest.raises(TypeError, match="has no trainer"):
            numbanet.fit(Learner(), steps=2, callbacks=[each], **QUIET)
    with pytest.raises(TypeError, match="has no trainer"):
        numbanet.fit(Learner(), steps=2, learning_rate=0.1, **QUIET)
    step = next(numbanet.training(Learner(), steps=1))
    with pytest.raises(TypeError, match="has no trainer"):
        _ = step.learning_rate
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_after_a_step(model, tmp_path):
    path = tmp_path / "model.safetensors"

    def press(run):
        if run.step == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        saving = callbacks.Checkpoint(path)
        history = numbanet.fit(model, batch, steps=10, callbacks=[press, saving], **QUIET)
        assert (history.step, history.end) == (3, "Ctrl-C")
        assert numbanet.load(path, device="cpu").trainer.n_steps == 3
        with pytest.raises(KeyboardInterrupt):
            numbanet.fit(model, batch, steps=10, callbacks=[press, press], **QUIET)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_progress_is_shown(model, capsys):
    numbanet.fit(model, batch, steps=20, callbacks=[callbacks.Evaluation(lambda: 5, every=10)])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 1/20  loss ")
    assert lines[-1].startswith("step 20/20  loss ")
    assert "evaluation 5" in lines[-1]
    numbanet.fit(model, [BATCH], steps=20)
    assert "ended at step 1 of 20: no more batches" in capsys.readouterr().err


def test_events_for_tensorboard(model, tmp_path):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX")
    board = callbacks.TensorBoard(tmp_path)
    evaluation = callbacks.Evaluation(lambda: 5, every=2, name="psnr")
    options = {"learning_rate": schedules.piecewise({0: 0.5, 2: 0.25}), **QUIET}
    history = numbanet.fit(model, batch, steps=3, callbacks=[evaluation, board], **options)
    (path,) = tmp_path.iterdir()
    found = {}
    for event in records(path.read_bytes(), event_pb2.Event):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert found["loss"] == [(step, pytest.approx(loss)) for step, loss in history.losses]
    assert found["learning_rate"] == [(1, 0.5), (2, 0.5), (3, 0.25)]
    assert found["psnr"] == [(2, 5), (3, 5)]


def records(content, kind):
    """The messages of a file of TFRecords: length, its checksum, message, its checksum."""
    place = 0
    while place < len(content):
        length = int.from_bytes(content[place : place + 8], "little")
        yield kind.FromString(content[place + 12 : place + 12 + length])
        place += 16 + length


def test_tensorboard_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'pip install "numbanet\[tensorboard\]"'):
        callbacks.TensorBoard(tmp_path)


def test_a_history_is_json(model):
    history = numbanet.fit(model, batch, steps=3, **QUIET)
    again = numbanet.History.from_json(json.loads(json.dumps(history.to_json())))
    assert again == history
    for wrong in (
        [], None, {"steps": 3}, {"step": -1}, {"step": 1.0}, {"step": 1, "losses": [[2, 1.0]]},
        {"losses": [1]}, {"losses": [[0, "x"]]}, {"metrics": [[0, {"psnr": "x"}]]},
        {"training_seconds": float("nan")}, {"timed_steps": 3}, {"end": 5},
    ):  # fmt: skip
        with pytest.raises(TypeError):
            numbanet.History.from_json(wrong)


def test_losses_are_read_ever_more_rarely():
    assert [n for n in range(1, 300) if loss_due(n)] == [*range(1, 100), *range(100, 300, 10)]
    assert sum(map(loss_due, range(1, 10**5 + 1))) < 1300
