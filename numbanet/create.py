"""Construction of trainable models from JSON configs."""

import os
from collections.abc import Mapping
from typing import Any

from numbanet import registry
from numbanet.communicator import Communicator, communicator_of
from numbanet.composed_model import ComposedModel
from numbanet.composition import Composition
from numbanet.composition_config import SECTIONS as PART_SECTIONS
from numbanet.encoding_model import Encoding
from numbanet.losses.base import AbstractLoss
from numbanet.model import AbstractModel
from numbanet.model_arguments import check_bool, check_sigma, initial_rng
from numbanet.network_with_input_encoding import NetworkWithInputEncoding
from numbanet.optimizers.base import AbstractOptimizer
from numbanet.random import Pcg32
from numbanet.registry import ConfigError
from numbanet.saved_training import SECTIONS, composition_of, open_saved_training
from numbanet.shown import shown
from numbanet.snapshot import SnapshotError
from numbanet.target import AbstractTarget
from numbanet.targets import device_of_rank, target_for
from numbanet.trainable_model import TrainableModel
from numbanet.trainer import Trainer
from numbanet.unknown_options import UnknownOptions, note_unknown

SCHEMA = "$schema"  # by which editors complete a config; it says nothing about the model
KNOWN = (*SECTIONS, *PART_SECTIONS, "deterministic", "perturbation_sigma")


def create_loss(config: Mapping[str, Any]) -> AbstractLoss:
    """Make a loss from its JSON config; RelativeL2 where no otype is given."""
    return registry.create("loss", config, default="RelativeL2")


def create_optimizer(config: Mapping[str, Any]) -> AbstractOptimizer:
    """Make an optimizer from its JSON config; Adam where no otype is given."""
    return registry.create("optimizer", config, default="Adam")


def create_from_config(
    n_input_dims: int,
    n_output_dims: int | None,
    config: Mapping[str, Any],
    seed: int = 1337,
    device: Any = "auto",
    precision: str | None = None,
    *,
    seed_convention: str = "bindings",
    on_nonfinite: str = "skip",
    fused: bool | None = None,
    comm: Communicator | None = None,
    deterministic: bool | None = None,
) -> TrainableModel:
    """Make loss, optimizer, network and trainer from a config with a section for each.

    Args:
        n_input_dims: width of the inputs; those of a grid are to be in [0, 1].
        n_output_dims: width of the outputs; may be None where the config says it, as of parts.
        config: "loss", "optimizer", "encoding" and "network"; each may be missing. A network that
            is null leaves the encoding by itself. "parts" and "outputs" instead make a model of
            several parts; see create_composed_model. "deterministic" is true or false,
            "perturbation_sigma" a number; see Trainer.
        seed: of the initial parameters, and of the noise of a perturbation.
        device: "auto", "cpu", "cuda" or "cuda:N"; "auto" takes a GPU where one can be used.
        precision: of the parameters that the kernels read, "float32", "float16" or "bfloat16";
            None for float32 on the CPU and float16 on a GPU.
        seed_convention: "bindings" for the initial values of tiny-cuda-nn's PyTorch bindings,
            "trainer" for those of its C++ Trainer.
        on_nonfinite: see Trainer.
        fused: on a GPU, None for one kernel for encoding and network where they can be fused, True
            for an error where they cannot, False for a chain of kernels. Second derivatives always
            take the chain.
        comm: of numbanet.distributed.init, to train with other processes: see Trainer. Of several
            GPUs of a host, each of its processes takes another one.
        deterministic: see Trainer; None for what the config says, or else False.

    Raises:
        ConfigError: the config cannot be used; the message names the option.
        ValueError: another argument cannot.
        RuntimeError: the device cannot be used.
    """
    comm = communicator_of(comm)
    target = target_for(device_of_rank(device, comm), precision, fused, comm.size)
    composition, loss, optimizer = create_components(n_input_dims, n_output_dims, config)
    model: Any = model_of(composition, initial_rng(seed, seed_convention), target)
    if deterministic is None:
        deterministic = asks_for_determinism(config)
    options = {"on_nonfinite": on_nonfinite, "comm": comm, "deterministic": deterministic}
    options |= {"perturbation_sigma": config.get("perturbation_sigma", 0.0), "seed": seed}
    return TrainableModel(model, Trainer(model, optimizer, loss, **options))


def asks_for_determinism(config: Mapping[str, Any]) -> bool:
    """Whether a config is "deterministic"; raises ConfigError unless it is true or false."""
    asked = config.get("deterministic", False)
    if not isinstance(asked, bool):
        raise ConfigError(f"deterministic: {shown(asked)} is not allowed; use true or false")
    return asked


def model_of(composition: Composition, rng: Pcg32, target: AbstractTarget) -> AbstractModel:
    """Model of these components: of several parts, of one network, or of an encoding."""
    if composition.is_named:
        return ComposedModel(composition, rng, target)
    (part,) = composition.parts
    if part.network is not None:
        return NetworkWithInputEncoding(part.encoding, part.network, rng, target)
    alignment = part.n_outputs if part.n_outputs > part.encoding.n_outputs else 0
    return Encoding(part.encoding, rng, target, alignment)


def create_components(
    n_input_dims: int, n_output_dims: int | None, config: Mapping[str, Any]
) -> tuple[Composition, AbstractLoss, AbstractOptimizer]:
    """Make the components of a config; raises as create_from_config."""
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"config: expected a JSON object, got {shown(config)}; numbanet.load_config reads files"
        )
    asks_for_determinism(config)  # raises if it is neither
    check_sigma(config.get("perturbation_sigma", 0.0))
    given = {section: value for section, value in config.items() if section != SCHEMA}
    with UnknownOptions():
        note_unknown(given, KNOWN, "", "a config", {}, "section")
        loss = create_loss(config.get("loss", {}))
        optimizer = create_optimizer(config.get("optimizer", {}))
        composition = composition_of(n_input_dims, n_output_dims, config)
    return composition, loss, optimizer


def load(
    path: str | os.PathLike[str],
    device: Any = "auto",
    precision: str | None = None,
    *,
    on_nonfinite: str = "skip",
    allow_nonfinite: bool = False,
    comm: Communicator | None = None,
    deterministic: bool | None = None,
) -> TrainableModel:
    """Load a model from a snapshot, ready to continue its training.

    Args:
        path: a regular file that `model.save` wrote.
        device, precision, on_nonfinite, comm: see create_from_config.
        allow_nonfinite: take numbers that are infinite or NaN, and an optimizer's state of
            which training may make such.
        deterministic: see Trainer; None for what the snapshot's config says.

    Raises:
        SnapshotError: the file is damaged, or something else.
        OSError: the file cannot be read.
        ValueError: another argument cannot be used.
        RuntimeError: the device cannot be used.
    """
    comm = communicator_of(comm)
    target = target_for(device_of_rank(device, comm), precision, n_ranks=comm.size)
    if deterministic is not None:
        check_bool("deterministic", deterministic)
    with open_saved_training(path) as (saved, file):
        tensors = file.tensors(saved.tensor_shapes)
        saved.check_numbers(file.name, tensors, allow_nonfinite)
    rng = initial_rng(1337, "bindings")  # its parameters are replaced
    try:
        network: Any = model_of(saved.composition, rng, target)
    except ValueError as error:
        raise SnapshotError(f"{file.name}: cannot be used on {target.name} ({error})") from error
    deterministic = saved.deterministic if deterministic is None else deterministic
    options = {"on_nonfinite": on_nonfinite, "comm": comm, "deterministic": deterministic}
    options["perturbation_sigma"] = saved.perturbation_sigma
    trainer = Trainer(network, saved.optimizer, saved.loss, **options)
    trainer.restore(saved, saved.completed(tensors))
    return TrainableModel(network, trainer, saved.metadata)
