"""Model within a user's kernel: device functions that load it and evaluate it.

They are the parts of the fused inference kernel. Each lane gives the inputs of one sample and gets
its outputs; in between, the 32 samples of a warp pass through the matrices together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from numbanet.architecture import AMPERE, reaches
from numbanet.cuda.block.layout import FRAGMENTS, MOST_HIDDEN, FusedLayout, fits
from numbanet.cuda.block.network import forward
from numbanet.cuda.block.outputs import for_each_output
from numbanet.cuda.block.samples import encode
from numbanet.cuda.block.weights import load_weights
from numbanet.cuda.in_kernels.lane_network import evaluate
from numbanet.cuda.in_kernels.user_kernel import UserKernel
from numbanet.cuda.launch.threads import WARP, barrier, stop, thread_in_block, threads_in_block
from numbanet.cuda.toolchain.compiler import teach_unsigned
from numbanet.device import device, float_bits, float_from_bits, local_array, unrolled
from numbanet.encoded_network import EncodedNetwork
from numbanet.storage.views import DTYPES, ITEM_SIZES
from numbanet.tiles.fragments import ROWS
from numbanet.tiles.instructions import (
    load_word,
    shared_memory,
    store_word,
    wait_for_copies,
    warp_barrier,
)

ALIGNMENT = 16  # bytes of shared memory: the widest access
MOST_THREADS = 1024  # of a block
LANES, LAST_LANE, LOG2_LANES = WARP, WARP - 1, 5


@cache
def params_address(precision: str):
    """Function array -> address of its first element, uint64; addresses pass unchanged."""
    dtype = from_dtype(np.dtype(DTYPES[precision]))

    @intrinsic
    def address_of_params(typingctx, array):
        return address_code(array, dtype)

    return address_of_params


def address_code(array, dtype):
    """Typing and code of address_of_params."""
    if isinstance(array, types.Integer):

        def widened(context, builder, signature, args):
            return context.cast(builder, args[0], array, types.uint64)

        return types.uint64(array), widened
    if not isinstance(array, types.Array) or array.dtype != dtype:
        raise TypingError(f"params: expected what kernel_params() returns, got {array}")

    def codegen(context, builder, signature, args):
        data = context.make_array(array)(context, builder, args[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.uint64(array), codegen


@dataclass(frozen=True)
class UserLayout:
    """Shared memory of a block that evaluates a model: that of a fused kernel, and the outputs."""

    fused: FusedLayout
    offset: int  # bytes that belong to others

    @property
    def network(self) -> Any:
        return self.fused.model.network

    @property
    def output_pitch(self) -> int:
        """Bytes between outputs of neighbouring samples: odd words, to avoid bank conflicts."""
        return 4 * (self.network.n_output_dims | 1)

    @property
    def outputs(self) -> int:
        return self.offset + self.fused.shared_bytes

    @cached_property
    def shared_bytes(self) -> int:
        end = self.outputs + self.fused.n_threads * self.output_pitch
        return -(-end // ALIGNMENT) * ALIGNMENT


@cache
def load(layout: UserLayout, precision: str):
    """Device function (params): the block copies the weights to its shared memory."""
    copy, n_threads = load_weights(layout.fused), layout.fused.n_threads
    offset, address_of_params = layout.offset, params_address(precision)

    @device
    def load(params):
        if threads_in_block() != n_threads:  # the results would be wrong
            stop()
        barrier()  # until nothing reads the previous weights
        copy(thread_in_block(), address_of_params(params), shared_memory() + offset)
        wait_for_copies()
        barrier()

    return load


@cache
def infer(layout: UserLayout, precision: str):
    """Device function (params, x, y): the outputs y of each lane's sample x; all lanes together."""
    model, network = layout.fused.model, layout.network
    n_outputs, n_sums = network.n_output_dims, layout.fused.widths[-1] // 2
    encode_sample, multiply = encode(model.encoding, precision), forward(layout.fused, precision)
    act = network.activations[1].forward
    n_weight_bytes = np.uint64(network.n_params * ITEM_SIZES[precision])
    offset, outputs = layout.offset, layout.outputs
    features, feature_pitch = layout.fused.rows[0], layout.fused.pitches[0]
    output_pitch, address_of_params = layout.output_pitch, params_address(precision)

    @device
    def write(e, i, column, context):
        address, sums = context
        place = i * output_pitch + column * 4
        store_word(address + place, float_bits(act(sums[e])))

    write_outputs = for_each_output(n_outputs, write)

    @device
    def fragment(k, shared, address, warp, lane):
        row, sums = warp * LANES + ROWS * k, local_array(n_sums)
        multiply(shared, row, lane, sums, np.uint64(0))
        write_outputs(lane, row, (address, sums))

    @device
    def read(column, address, y):
        y[column] = float_from_bits(load_word(address + 4 * column))

    @device
    def infer(params, x, y):
        thread, memory = thread_in_block(), shared_memory()
        warp, lane = thread >> LOG2_LANES, thread & LAST_LANE
        shared, address = memory + offset, memory + outputs
        row = shared + features + thread * feature_pitch
        encode_sample(x, np.uint64(address_of_params(params) + n_weight_bytes), row)
        warp_barrier()
        unrolled(FRAGMENTS, fragment, shared, address, warp, lane)
        warp_barrier()
        unrolled(n_outputs, read, address + thread * output_pitch, y)

    return infer


@cache
def infer_alone(model: EncodedNetwork, precision: str):
    """Device function (params, x, y): as infer, but each lane works alone."""
    compute, address_of_params = evaluate(model, precision), params_address(precision)

    @device
    def infer_alone(params, x, y):
        compute(address_of_params(params), x, y)

    return infer_alone


@device
def load_nothing(params):
    return


@dataclass(frozen=True)
class DeviceFunctions:
    """Model as device functions for the user's own kernels; see docs/device_functions.md.

    All threads of a block call `load(params)`, then all lanes of a warp together, as often as they
    like, `infer(params, x, y)`. x and y are 1-D arrays of float32, the inputs and the outputs of
    the lane's sample; params is an argument of the kernel, what the model's `kernel_params()`
    returned. Bind both functions to names, since a kernel cannot look into this object.

    Attributes:
        load: the device function that copies the weights to shared memory.
        infer: the device function that evaluates the model.
        threads_per_block: of the launch.
        shared_bytes: of dynamic shared memory that the launch has to ask for.
        fused: whether the lanes of a warp work together, on tensor cores.
    """

    load: Callable
    infer: Callable
    threads_per_block: int
    shared_bytes: int
    fused: bool
    _device: Any = field(repr=False)

    def kernel(
        self, function: Callable, block: Sequence[int] | None = None, shared_bytes: int = 0
    ) -> UserKernel:
        """Make a kernel from a function that calls these, for the model's device.

        Args:
            function: the work of one thread, in plain Python as `numba.cuda.jit` takes it.
            block: the threads of a block in up to three dimensions; all of them along x if None.
            shared_bytes: of dynamic shared memory, if more is needed than these functions do.

        Raises:
            ValueError: the block has not `threads_per_block` threads.
        """
        block = (self.threads_per_block,) if block is None else tuple(block)
        if len(block) > 3 or math.prod(block) != self.threads_per_block or min(block) < 1:
            raise ValueError(
                f"block: {block} has not the {self.threads_per_block} threads that these device "
                "functions are made for; choose their threads_per_block to suit it"
            )
        return UserKernel(self._device, function, block, max(shared_bytes, self.shared_bytes))


def why_not_fused(layout: UserLayout, precision: str, device: Any) -> str | None:
    """Reason why the lanes of a warp cannot evaluate a model together, for an error message."""
    if precision == "float32" or not reaches(device, AMPERE):
        return "float32, and GPUs before Ampere, have no matrix instructions"
    if layout.network.bias:
        return "its network has biases, which no fused kernel adds"
    if not fits(layout.fused, layout.fused.shared_bytes):
        return (
            "its network needs a hidden layer, and widths that are multiples of "
            f"{ROWS} up to {MOST_HIDDEN}"
        )
    if layout.shared_bytes > device.max_shared_bytes:
        return (
            f"a block needs {layout.shared_bytes} bytes of shared memory, {device!r} has "
            f"{device.max_shared_bytes}; fewer threads_per_block need less"
        )
    return None


def device_functions(
    device: Any,
    model: EncodedNetwork,
    precision: str,
    threads_per_block: int = 128,
    shared_offset: int = 0,
    fused: bool | None = None,
) -> DeviceFunctions:
    """Device functions of a model whose encoding is padded; see NetworkWithInputEncoding."""
    n = threads_per_block
    if not isinstance(n, (int, np.integer)) or n % WARP or not WARP <= n <= MOST_THREADS:
        raise ValueError(
            f"threads_per_block: {n!r} is not allowed; use a multiple of {WARP} up to "
            f"{MOST_THREADS}"
        )
    if not isinstance(shared_offset, (int, np.integer)) or shared_offset < 0:
        raise ValueError(f"shared_offset: {shared_offset!r} is not allowed; use bytes from 0")
    offset = -(-int(shared_offset) // ALIGNMENT) * ALIGNMENT
    teach_unsigned()  # also where nothing had to be compiled so far
    layout = UserLayout(FusedLayout(model, int(n) // WARP, trains=False), offset)
    reason = why_not_fused(layout, precision, device)
    if fused and reason is not None:
        raise ValueError(f"fused=True: {reason}; fused=None lets each lane work alone then")
    if fused is False or reason is not None:
        parts = load_nothing, infer_alone(model, precision), int(n), offset
        return DeviceFunctions(*parts, fused=False, _device=device)
    parts = load(layout, precision), infer(layout, precision), int(n), layout.shared_bytes
    return DeviceFunctions(*parts, fused=True, _device=device)
