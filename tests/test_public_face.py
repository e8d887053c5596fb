"""The names that `import numbanet` gives: what is there, what it says of itself, what went."""

import dataclasses
import inspect
import math
import statistics
import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import pytest
import typed_program

import numbanet
from numbanet.engine import Service

PUBLIC = [getattr(numbanet, name) for name in numbanet.__all__ if name != "__version__"]
CLASSES = [each for each in PUBLIC if inspect.isclass(each)]


def members(kind):
    """Public methods and properties that a class of ours defines."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] == "numbanet":
            yield from ((n, v) for n, v in vars(base).items() if not n.startswith("_"))


@pytest.fixture
def model():
    return models.create("hash")


def test_only_what_is_public_is_listed():
    assert dir(numbanet) == sorted(numbanet.__all__) == numbanet.__all__
    assert not [name for name in dir(numbanet) if inspect.ismodule(getattr(numbanet, name))]
    assert (Path(numbanet.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_all_that_is_public_says_what_it_is(kind):
    assert inspect.getdoc(kind)
    for name, value in members(kind):
        if isinstance(value, property) or inspect.isroutine(value):
            text = value.__doc__ or inspect.getdoc(getattr(kind, name))
            assert text, f"{kind.__name__}.{name}"
        if inspect.isdatadescriptor(value):  # attributes in slots too
            assert inspect.getdoc(getattr(kind, name)), f"{kind.__name__}.{name}"


def test_functions_say_what_they_do_and_return():
    for function in PUBLIC:
        if inspect.isfunction(function):
            assert inspect.getdoc(function), function.__name__
            assert "return" in function.__annotations__, function.__name__


@pytest.mark.parametrize(
    ("use", "instead"),
    [
        (lambda m, x, path: m.trainer.params, lambda m, x, path: m.network.params),
        (
            lambda m, x, path: m.trainer.input_gradient(1, x),
            lambda m, x, path: m.input_gradient(1, x),
        ),
    ],
)
def test_old_names_warn_and_do_the_same(model, use, instead, tmp_path):
    x, _ = models.batch_of("hash", 5)
    with pytest.warns(DeprecationWarning, match="is deprecated, and goes in version") as caught:
        found = use(model, x, tmp_path)
    assert [each.filename for each in caught] == [__file__]
    np.testing.assert_array_equal(found, instead(model, x, tmp_path))


def test_inference_is_a_call(model):
    x = np.random.default_rng(0).random((5, 2))
    np.testing.assert_array_equal(model.trainer.inference(x), model(x))
    np.testing.assert_array_equal(model.network.inference(x), model.network(x))


def test_old_names_of_parts_and_files(model, tmp_path):
    trainer = model.trainer
    with pytest.warns(DeprecationWarning, match="use Trainer.network"):
        assert trainer.model is model.network
    with pytest.warns(DeprecationWarning, match="use model.trainer.loss"):
        assert model.loss is trainer.loss
    with pytest.warns(DeprecationWarning, match="use model.trainer.optimizer"):
        assert model.optimizer is trainer.optimizer
    with pytest.warns(DeprecationWarning, match="use model.save"):
        trainer.save(tmp_path / "snapshot", {"a": 1})
    with pytest.warns(DeprecationWarning, match="use model.load"):
        assert trainer.load(tmp_path / "snapshot") == {"a": 1} == model.load(tmp_path / "snapshot")


def test_attributes_that_do_not_exist_cannot_be_set(model):
    """A name with a slip of the pen would else be kept, and nothing come of it."""
    parts = model, model.trainer, model.network, numbanet.create_encoding(2, {"otype": "Identity"})
    for part in parts:
        with pytest.raises(AttributeError):
            part.learning_rat = 1e-3
        with pytest.raises(AttributeError):
            _ = part.learning_rat
    model.trainer.learning_rate = 1e-3
    many = numbanet.create_many(2, 1, {}, 2, device="cpu")
    with pytest.raises(AttributeError):
        many.learning_rate = 1e-3  # it has learning_rates
    many.learning_rates = 1e-3


def test_a_model_and_its_trainer_are_shown_on_a_few_lines(model):
    trainer, network = model.trainer, model.network
    for each, n_lines in ((model, 5), (trainer, 6), (network, 3)):
        assert len(repr(each).splitlines()) == n_lines
        assert f"{network.n_params:,} parameters" in repr(each)
        assert "HashGrid" not in repr(each) or "Grid(type='Hash'" in repr(each)
        assert f"{network.n_params:,}" in each._repr_html_()
    assert "Adam(learning_rate=0.01, epsilon=1e-15)" in repr(model)


def test_the_summary_counts_what_is_kept(model):
    found = numbanet.summary(model)
    shapes = {name: view.shape for name, view in model.network.named_parameters().items()}
    assert {part.name: part.shape for part in found.parts} == shapes
    assert found.n_params == model.network.n_params
    kept = model.network.params, model.network.gradients, model.trainer.optimizer_state
    assert found.n_bytes == sum(array.nbytes for array in kept)
    text = str(found)
    for part in ("network.0", "encoding", "total", f"{found.n_bytes:,}", "inference, training"):
        assert part in text
    assert numbanet.summary(model.trainer) == found
    assert numbanet.summary(model.network).n_bytes == sum(array.nbytes for array in kept[:2])
    encoding = numbanet.create_encoding(2, {"otype": "Frequency"}, device="cpu")
    assert "Frequency" in str(numbanet.summary(encoding))
    with pytest.raises(TypeError, match="expected a model of numbanet, got a dict"):
        numbanet.summary({})


def test_the_summary_is_a_table_where_rich_is_used(model):
    console = pytest.importorskip("rich.console", reason="needs rich")
    recorded = console.Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    recorded.print(numbanet.summary(model))
    text = recorded.export_text()
    assert "parameters" in text
    assert "─" in text
    assert f"{model.network.n_params:,}" in text
    recorded.file.close()


def test_components_are_shown_with_what_was_chosen():
    from numbanet.summary import shortened

    nested = {"otype": "Adam", "learning_rate": 0.5}
    optimizer = numbanet.create_optimizer({"otype": "EMA", "decay": 0.9, "nested": nested})
    assert shortened(optimizer) == "EMA(decay=0.9, nested=Adam(learning_rate=0.5))"


def test_the_summary_is_safe_in_a_page(model):
    found = dataclasses.replace(
        numbanet.summary(model), title="<b>", services=(Service("<i>", "&", "why"),)
    )
    assert "<b>" not in found._repr_html_()
    assert "&lt;i&gt;" in found._repr_html_()


def test_a_loss_is_a_number(model):
    x, targets = models.batch_of("hash", 20)
    loss = model.trainer.training_step(x, targets)
    value = float(loss)
    assert 0 < value < 10
    assert loss == value
    assert (loss != value) is False
    assert hash(loss) == hash(value)
    assert loss < value + 1 > loss
    assert value - 1 < loss <= loss >= value
    found = loss + 1, 1 + loss, loss - 1, 1 - loss, loss * 2, 2 * loss, loss / 2, 2 / loss
    assert found == (value + 1, 1 + value, value - 1, 1 - value, value * 2, 2 * value, value / 2,
                     2 / value)  # fmt: skip
    assert (loss**2, 2**loss, loss // 0.1, 1 // loss) == (value**2, 2**value, value // 0.1,
                                                          1 // value)  # fmt: skip
    assert (loss % 0.1, 1 % loss, -loss, +loss, abs(loss)) == (value % 0.1, 1 % value, -value,
                                                              value, value)  # fmt: skip
    assert (round(loss, 3), int(loss), math.floor(loss), math.ceil(loss), math.trunc(loss)) == (
        round(value, 3), int(value), math.floor(value), math.ceil(value), math.trunc(value),
    )  # fmt: skip
    assert np.mean([loss, loss + 2]) == pytest.approx(value + 1)
    assert np.asarray([loss]).dtype == np.float64
    assert sum([loss, loss]) == max([2 * loss, loss]) == 2 * value
    assert np.float32(2) * loss == pytest.approx(2 * value)
    assert math.isfinite(loss)
    assert statistics.fmean([loss, loss]) == statistics.median([loss]) == value
    assert f"{loss:.3f}" == f"{value:.3f}"
    assert bool(loss)
    with pytest.raises(TypeError):
        _ = loss < "1"
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(loss, copy=False) if np.__version__ >= "2" else loss.__array__(copy=False)


def test_a_loss_says_what_it_is_of(model):
    x, targets = models.batch_of("hash", 20)
    dl_dy = np.ones_like(targets)
    step = model.trainer.training_step
    with_both = step(x, targets, external_dl_dy=dl_dy)
    alone = step(x, None, external_dl_dy=dl_dy)
    assert repr(step(x, targets)).startswith("Loss(0")
    assert repr(with_both).endswith("of the targets; the gradient was external_dl_dy)")
    assert math.isfinite(with_both)
    assert float(alone) == 0
    assert repr(alone) == "Loss(0, without targets; the gradient was external_dl_dy)"


def test_arrays_are_what_the_protocol_says(model):
    x, _ = models.batch_of("hash", 5)
    for array in (model(x), model.network.params, *model.network.named_gradients().values()):
        assert isinstance(array, numbanet.Array)
        assert np.asarray(array).dtype == array.dtype == np.float32
    arrays = pytest.importorskip("numbanet.cuda.memory.arrays", reason="needs numba-cuda")
    assert isinstance(arrays.DeviceArray((1,), np.dtype("f4"), 0, None, None), numbanet.Array)
    assert isinstance([1.0], numbanet.Array) is False


def test_the_program_that_the_type_checker_reads_runs(tmp_path):
    typed_program.main(tmp_path)


def test_nothing_public_needs_an_extra():
    """Neither the names nor a summary as text."""
    program = (
        "import sys, numbanet\n"
        "sys.modules['rich'] = None\n"
        "model = numbanet.create_from_config(2, 1, {}, device='cpu')\n"
        "print(numbanet.summary(model))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "total" in done.stdout
