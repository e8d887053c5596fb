"""Snapshots of tiny-cuda-nn and instant-ngp.

tiny-cuda-nn's trainer hands out {"n_params", "params_type", "params_binary", "optimizer"}, which
applications write as MessagePack or as JSON. instant-ngp puts it under "snapshot", beside the
sections of its config, and compresses the file (.ingp). The parameters are in our order.
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from numbanet.caller import warn_caller
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import MOST_STEPS, AbstractOptimizer
from numbanet.registry import ConfigError
from numbanet.regular_file import read_regular
from numbanet.saved_training import SECTIONS, SavedTraining
from numbanet.shown import shown
from numbanet.snapshot import SnapshotError, check_finite
from numbanet.trainer import Trainer
from numbanet.trainer_settings import updated

Source = str | os.PathLike | bytes | bytearray | memoryview

DTYPES = {"float": np.dtype("<f4"), "__half": np.dtype("<f2")}
# Adam's state there, in the order of the rows of ours.
ADAM_ROWS = {
    "first_moments_binary": "<f4",
    "second_moments_binary": "<f4",
    "param_steps_binary": "<u4",
}
MOST_BYTES = 1 << 34
MAX_ITEMS = 1 << 16  # of a list or dict, for which msgpack allocates before it reads them
# Weights hardly compress and zeros do so 1000 times, so beyond this a file is made to do harm.
UNPACKED_BYTES, UNPACKED_RATIO = 1 << 26, 32
MAP_BYTES = (*range(0x80, 0x90), 0xDE, 0xDF)  # first bytes of a dict in MessagePack


@dataclass(frozen=True, eq=False)
class TcnnSnapshot:
    """Content of a snapshot of tiny-cuda-nn or instant-ngp."""

    params: np.ndarray  # the parameters for inference, float32 [n_params]
    config: dict[str, Any] = field(default_factory=dict)  # empty unless instant-ngp wrote it
    optimizer: dict[str, Any] | None = None  # the optimizer's state as it was stored
    name: str = "the snapshot"

    def restore(self, trainer: Trainer, *, allow_nonfinite: bool = False) -> None:
        """Restore the parameters of a trainer and, where both use Adam, the optimizer's state.

        Where the state does not fit, a warning says what is left out, and the optimizer starts
        anew. The counter of steps and the learning rate become those of the state that is used.

        Args:
            allow_nonfinite: take numbers that are infinite or NaN, and moments of which training
                may make such.

        Raises:
            SnapshotError: of another number of parameters, or damaged; nothing changed then.
        """
        model = trainer.network
        if model.n_params != self.params.size:
            networks = (part.network for part in model.composition.parts)
            biased = any(network is not None and network.bias for network in networks)
            raise SnapshotError(
                f"{self.name}: has {self.params.size} parameters, and the model {model.n_params}"
                f"{' with its biases, which tiny-cuda-nn has not' if biased else ''}"
            )
        state, optimizer, n_steps = self._optimizer_state(trainer.optimizer)
        saved = SavedTraining(model.composition, trainer.loss, optimizer, n_steps, 0, metadata={})
        tensors = {name: np.zeros(shape, "f4") for name, shape in saved.tensor_shapes.items()}
        tensors |= {"params": self.params, "optimizer.state": state}
        saved.check_numbers(self.name, tensors, allow_nonfinite)
        trainer.restore(saved, tensors)

    def _optimizer_state(
        self, optimizer: AbstractOptimizer
    ) -> tuple[np.ndarray, AbstractOptimizer, int]:
        """New state, the optimizer with its learning rate, and the number of steps."""
        theirs, n_wrappers = self.optimizer, 0
        while isinstance(theirs, Mapping) and isinstance(theirs.get("nested"), Mapping):
            theirs, n_wrappers = theirs["nested"], n_wrappers + 1
        anew = optimizer.initial_state(self.params), optimizer, 0
        if theirs is None:
            return anew
        is_adam = isinstance(theirs, Mapping) and "first_moments_binary" in theirs
        # Novograd has first moments too, but one second moment per matrix.
        if not (is_adam and "second_moments_binary" in theirs and isinstance(optimizer, Adam)):
            self._warn("the optimizer's state is left out: only Adam's can be read, into Adam")
            return anew
        if n_wrappers:
            self._warn(f"of {n_wrappers} optimizers around Adam the state is left out")
        rows = np.zeros((len(ADAM_ROWS), self.params.size), np.float32)
        for row, (key, dtype) in zip(rows, ADAM_ROWS.items(), strict=True):
            if key in theirs or key != "param_steps_binary":  # which old snapshots have not
                row[:] = _numbers(theirs.get(key), np.dtype(dtype), row.size, self.name, key)
        n_steps, rate = theirs.get("current_step"), theirs.get("base_learning_rate")
        if not (type(n_steps) is int and 0 <= n_steps <= MOST_STEPS):
            raise SnapshotError(f"{self.name}: current_step is {shown(n_steps)}")
        try:
            adam = updated(optimizer, {"learning_rate": rate}, "optimizer")
        except ConfigError as error:
            raise SnapshotError(
                f"{self.name}: base_learning_rate cannot be used ({error!s:.200})"
            ) from error
        return adam.state_of(*rows), adam, n_steps

    def _warn(self, message: str) -> None:
        warn_caller(f"{self.name}: {message}")


def read_tcnn_snapshot(source: Source, *, allow_nonfinite: bool = False) -> TcnnSnapshot:
    """Read a snapshot of tiny-cuda-nn or instant-ngp; nothing in it is executed.

    Args:
        source: a path, or the bytes of a file: MessagePack or JSON, compressed (zlib, gzip) or not.
        allow_nonfinite: take parameters that are infinite or NaN.

    Raises:
        SnapshotError: the file is damaged, or something else.
        OSError: the file cannot be read, is no regular file, or has more than 16 GiB.
        ImportError: the file is MessagePack, and msgpack is not installed.
    """
    found = snapshot_of(*content_of(source))
    if not allow_nonfinite:
        check_finite(found.name, {"params": found.params})
    return found


def snapshot_of(content: bytes, name: str) -> TcnnSnapshot:
    """Snapshot in a file's content; `name` is for messages."""
    whole = _parsed(_unpacked(content, name), name)
    is_bare = "params_binary" in whole
    data = whole if is_bare else whole.get("snapshot")
    if not isinstance(data, dict) or "params_binary" not in data:
        raise SnapshotError(f"{name}: holds no snapshot of tiny-cuda-nn (no params_binary)")
    n_params = data.get("n_params")
    if type(n_params) is not int or n_params < 0:
        raise SnapshotError(f"{name}: n_params is {shown(n_params)}")
    binary = _binary(data["params_binary"], name, "params_binary")
    dtype = _params_dtype(data, len(binary), n_params, name)
    params = as_float32(_numbers(binary, dtype, n_params, name, "params_binary"))
    sections = {} if is_bare else {key: whole[key] for key in SECTIONS if key in whole}
    return TcnnSnapshot(params, sections, data.get("optimizer"), name)


def content_of(source: Source) -> tuple[bytes, str]:
    """Bytes of a path or a buffer, and a name for messages.

    Raises:
        OSError: the file cannot be read, is no regular file, or has more than 16 GiB.
        TypeError: it is neither.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
        return content, f"{len(content)} bytes"
    if isinstance(source, str | os.PathLike):
        return read_regular(source, MOST_BYTES), os.fspath(source)
    raise TypeError(f"source: expected a path or bytes, got {type(source).__name__}")


def _unpacked(content: bytes, name: str) -> bytes:
    is_gzip = content[:2] == b"\x1f\x8b"
    is_zlib = content[:1] == b"\x78" and int.from_bytes(content[:2], "big") % 31 == 0
    if not (is_gzip or is_zlib):
        return content
    limit = UNPACKED_BYTES + UNPACKED_RATIO * len(content)
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: zlib or gzip
    try:
        unpacked = stream.decompress(content, limit)
    except (zlib.error, MemoryError) as error:
        raise SnapshotError(f"{name}: the compressed data is damaged ({error})") from error
    if len(unpacked) == limit:
        raise SnapshotError(
            f"{name}: {len(content)} bytes unpack to {limit} or more, which no snapshot does"
        )
    if not stream.eof or stream.unused_data:
        raise SnapshotError(f"{name}: the compressed data is damaged (it ends early or goes on)")
    return unpacked


def _parsed(content: bytes, name: str) -> dict[str, Any]:
    """Parse JSON or MessagePack to a dict."""
    if content[:1] and content[0] in MAP_BYTES:
        limits = dict.fromkeys(("max_array_len", "max_map_len"), min(MAX_ITEMS, len(content)))
        kind, parse = "MessagePack", partial(import_msgpack().unpackb, **limits)
    elif content.lstrip()[:1] == b"{":
        kind, parse = "JSON", json.loads
    else:
        raise SnapshotError(f"{name}: neither MessagePack nor JSON of a snapshot")
    try:
        return parse(content)
    # Parsers raise many kinds of ValueError; the others come from absurd sizes and depths.
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise SnapshotError(f"{name}: damaged {kind} ({error!s:.200})") from error


def import_msgpack() -> Any:
    """Import msgpack; an ImportError names the extra that installs it."""
    try:
        import msgpack
    except ImportError as error:
        raise ImportError('MessagePack needs msgpack: pip install "numbanet[snapshots]"') from error
    return msgpack


def _params_dtype(data: Mapping[str, Any], n_bytes: int, n_params: int, name: str) -> np.dtype:
    kind = data.get("params_type")
    if kind is None:  # old versions of tiny-cuda-nn did not write it
        fitting = [dtype for dtype in DTYPES.values() if n_bytes == n_params * dtype.itemsize]
        if fitting:
            return fitting[0]
        raise SnapshotError(
            f"{name}: n_params is {n_params}, and params_binary has {n_bytes} bytes"
        )
    if not isinstance(kind, str) or kind not in DTYPES:
        raise SnapshotError(f"{name}: params_type is {shown(kind)}; expected {' or '.join(DTYPES)}")
    return DTYPES[kind]


def _numbers(value: Any, dtype: np.dtype, n: int, name: str, key: str) -> np.ndarray:
    binary = _binary(value, name, key)
    if len(binary) != n * dtype.itemsize:
        raise SnapshotError(
            f"{name}: {key} has {len(binary)} bytes, expected {n * dtype.itemsize} for {n} numbers"
        )
    return np.frombuffer(binary, dtype)


def _binary(value: Any, name: str, key: str) -> bytes:
    """Decode bytes, which JSON holds as {"bytes": [...], "subtype": ...}."""
    if isinstance(value, bytes):
        return value
    numbers = value.get("bytes") if isinstance(value, Mapping) else None
    if isinstance(numbers, list):
        try:
            return bytes(numbers)
        except (TypeError, ValueError) as error:
            raise SnapshotError(f"{name}: {key} is damaged ({error})") from error
    raise SnapshotError(f"{name}: {key} is missing or no binary")


def as_float32(values: np.ndarray) -> np.ndarray:
    """Copy as float32; infinities and NaN, also by overflow, give no warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32)
