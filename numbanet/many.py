"""Many models of one config, trained side by side: ensembles, and sweeps over seeds or rates."""

from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from numbanet.array_types import Array, ArrayLike
from numbanet.arrays import as_host_matrix
from numbanet.create import asks_for_determinism, create_components
from numbanet.encoded_network import EncodedNetwork
from numbanet.engine import Batch
from numbanet.many_losses import Losses
from numbanet.model_arguments import initial_rng
from numbanet.network_with_input_encoding import NetworkWithInputEncoding
from numbanet.registry import ConfigError
from numbanet.saved_training import SavedTraining
from numbanet.shown import shown
from numbanet.target import AbstractTarget
from numbanet.targets import target_for
from numbanet.trainable_model import TrainableModel
from numbanet.trainer import Trainer
from numbanet.trainer_settings import updated

MOST_MODELS = 1 << 20


class ManyModels:
    """Models of one shape, each with parameters, an optimizer's state and steps of its own.

    Made by create_many. Indexing gives a model of its own, with copies: `models[3].save(path)`.
    """

    __slots__ = (
        *("_encoding", "_network", "_loss", "_optimizers", "_target", "_many", "_deterministic"),
        "__weakref__",
    )

    def __init__(
        self, components: Sequence[tuple], rngs: Sequence[Any], target: AbstractTarget,
        deterministic: bool = False,
    ):  # fmt: skip
        self._target, self._deterministic = target, deterministic
        composition, self._loss, _ = components[0]
        (part,) = composition.parts
        self._encoding, self._network = part.encoding, part.network
        self._loss.row(self._network.n_output_dims, False)
        self._optimizers = [optimizer for *_, optimizer in components]
        params = np.stack([composition.initial_params(rng) for rng in rngs])
        padded = EncodedNetwork(part.padded, part.network)
        given = padded, params, self._optimizers, composition.layout
        self._many = self._target.many(*given, deterministic, composition.quantized)

    def __len__(self) -> int:
        return len(self._optimizers)

    def __repr__(self) -> str:
        n_params = self._network.n_params + self._encoding.n_params
        return f"<{len(self)} models of {n_params} parameters on {self._target.name}>"

    def __reduce__(self):
        """Refuse pickles and copies: arrays of the models are parts of common ones."""
        raise TypeError("models: many models are not pickled or copied; take one, as models[0]")

    @property
    def deterministic(self) -> bool:
        """Whether training has the same bits in every run, as a CPU always has."""
        return self._deterministic

    @property
    def params(self) -> Array:
        """Parameters, float32 [n_models, n_params]; on a GPU a copy.

        Setting it changes the models, and what their optimizers average of the weights; on the CPU
        writing to it changes the models too.
        """
        return self._many.params

    @params.setter
    def params(self, values: ArrayLike) -> None:
        n_params = self._network.n_params + self._encoding.n_params
        self._many.set_params(as_host_matrix(values, "params", n_params, len(self)))

    def __getitem__(self, k: SupportsIndex) -> TrainableModel:
        """Model number k as a model of its own, with copies of its arrays.

        Raises:
            IndexError, TypeError: there is none of this number, or it is no integer.
        """
        try:
            k = range(len(self))[index(k)]
        except IndexError:
            raise IndexError(f"model {shown(k)}: there are {len(self)}, numbered from 0") from None
        optimizer = self._optimizers[k]
        network = NetworkWithInputEncoding(
            self._encoding, self._network, initial_rng(0, "bindings"), self._target
        )
        counts = int(self.n_steps[k]), int(self.n_skipped_steps[k])
        saved = SavedTraining(network.composition, self._loss, optimizer, *counts, {})
        trainer = Trainer(network, optimizer, self._loss, deterministic=self.deterministic)
        trainer.restore(saved, self._many.tensors(k))
        return TrainableModel(network, trainer)

    @property
    def n_steps(self) -> np.ndarray:
        """Steps of each model's optimizer, [n_models]."""
        return self._many.n_steps

    @property
    def n_skipped_steps(self) -> np.ndarray:
        """Skipped steps of each model, [n_models]; see training_step."""
        return self._many.n_skipped_steps

    @property
    def learning_rates(self) -> np.ndarray:
        """Learning rate of each model; setting them, or one for all, compiles nothing."""
        return np.array([each.learning_rate for each in self._optimizers])

    @learning_rates.setter
    def learning_rates(self, values: ArrayLike) -> None:
        try:
            rates = np.broadcast_to(np.asarray(values, np.float64), len(self)).tolist()
        except (TypeError, ValueError):
            raise ValueError(
                f"learning_rates: {shown(values)} is not allowed; use a number, or one for each of "
                f"{len(self)} models"
            ) from None
        self._optimizers = [
            updated(each, each.learning_rate_options(rate), "optimizer")
            for each, rate in zip(self._optimizers, rates, strict=True)
        ]

    def __call__(self, inputs: ArrayLike) -> Array:
        """Evaluate all models with their parameters for inference.

        Args:
            inputs: [n, n_input_dims] for all, or [n_models, n, n_input_dims].

        Returns:
            float32 [n_models, n, n_output_dims], on the models' device.

        Raises:
            TypeError, ValueError: the inputs do not fit.
        """
        xs = self._samples(inputs, "inputs", self._encoding.n_dims)
        return self._many.inference(xs, self._optimizers)

    def training_step(
        self, inputs: ArrayLike, targets: ArrayLike, pdf: ArrayLike | None = None
    ) -> np.ndarray | Losses:
        """Make a step of each model; one with numbers that are not finite skips it and warns.

        Args:
            inputs: [n, n_input_dims] for all models, or [n_models, n, n_input_dims].
            targets: [n, n_output_dims] for all, or [n_models, n, n_output_dims].
            pdf: the density with which each target was sampled, shaped as targets may be.

        Returns:
            The losses, float64 [n_models]: an array of NumPy, or on a GPU what becomes one when it
            is looked at.

        Raises:
            TypeError, ValueError: an argument does not fit; nothing has changed then.
        """
        n_outputs = self._network.n_output_dims
        xs = self._samples(inputs, "inputs", self._encoding.n_dims)
        ys = self._samples(targets, "targets", n_outputs, xs.shape[1])
        if pdf is not None:
            pdf = self._samples(pdf, "pdf", n_outputs, xs.shape[1])
        result = self._many.step(Batch(xs, ys, pdf), self._loss, self._optimizers)
        losses = Losses(result, len(self))
        return losses.numpy() if result.is_known else losses

    def _samples(self, values: Any, name: str, n_columns: int, n_rows: int | None = None) -> Array:
        """Convert samples to [1 or n_models, n, n_columns]; raises TypeError, ValueError."""
        shape = shape_of(values)
        if len(shape) != 3:
            one = self._target.matrix(values, name, n_columns, n_rows)
            return one.reshape(1, *one.shape)
        if shape[0] != len(self):
            raise ValueError(f"{name}: of {shape[0]} models, and there are {len(self)}")
        if n_rows is not None and shape[1] != n_rows:
            raise ValueError(
                f"{name}: expected shape {[len(self), n_rows, n_columns]}, got {list(shape)}"
            )
        array = values if hasattr(values, "reshape") else np.asarray(values)
        flat = array.reshape(shape[0] * shape[1], shape[2])
        return self._target.matrix(flat, name, n_columns).reshape(*shape)


def shape_of(values: Any) -> tuple[int, ...]:
    """Shape of any array; () for lists without one, which the target refuses."""
    try:
        return np.shape(values)
    except ValueError:
        return ()


def create_many(
    n_input_dims: int,
    n_output_dims: int,
    config: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    n: int | None = None,
    *,
    seeds: int | Iterable[int] = 1337,
    device: Any = "auto",
    precision: str | None = None,
    seed_convention: str = "bindings",
) -> ManyModels:
    """Make many models of one shape, which train side by side, in one launch for all.

    Each trains exactly as it would by itself.

    Args:
        n_input_dims, n_output_dims, device, precision, seed_convention: see create_from_config.
        config: of all models, or one of each, which differ in learning rates and other numbers that
            need no compilation.
        n: how many; may be left out where there are so many configs or seeds.
        seeds: of the initial parameters of each; or of the first, and the others' follow.

    Raises:
        ConfigError: a config cannot be used, or asks for other code than the first.
        ValueError: another argument cannot.
        RuntimeError: the device cannot be used.
    """
    target = target_for(device, precision)
    is_one = isinstance(config, (Mapping, str)) or not isinstance(config, Iterable)
    configs: list[Any] = [config] if is_one else list(config)
    given = list(seeds) if isinstance(seeds, Iterable) else seeds
    count = count_of(n, configs, given)
    if not isinstance(given, list):
        initial_rng(given, seed_convention)  # raises if it is no seed
        given = [int(given) + k for k in range(count)]
    rngs = [initial_rng(seed, seed_convention) for seed in given]
    components = [create_components(n_input_dims, n_output_dims, each) for each in configs]
    for composition, *_ in components:
        if composition.is_named or composition.parts[0].network is None:
            raise ConfigError("config: create_many makes models of one encoding and one network")
    if len(components) == 1:
        components *= count
    if any(each.get("perturbation_sigma", 0.0) for each in configs):
        raise ConfigError("perturbation_sigma: create_many has none; use 0")
    keys = [(*others, optimizer.kernel_key()) for *others, optimizer in components]
    for k, key in enumerate(keys):
        if key != keys[0]:
            raise ConfigError(f"config[{k}]: needs other code than config[0]; its shape differs")
    return ManyModels(components, rngs, target, any(map(asks_for_determinism, configs)))


def count_of(n: Any, configs: list, seeds: Any) -> int:
    """Number of models; raises ValueError where arguments contradict each other."""
    said = [] if n is None else [n]
    said += [len(seeds)] if isinstance(seeds, list) else []
    said += [len(configs)] if len(configs) != 1 else []
    are_integers = all(
        isinstance(each, (int, np.integer)) and not isinstance(each, bool) for each in said
    )
    counts = {int(each) for each in said} if are_integers else set()
    if len(counts) != 1 or not 1 <= min(counts) <= MOST_MODELS:
        raise ValueError(
            f"n: {shown(n)}, beside {len(configs)} configs and seeds {shown(seeds)}: say how many "
            f"models from 1 to {MOST_MODELS} once, or the same each time"
        )
    return counts.pop()
