"""Engine of an encoding by itself on the CPU, which calls its kernels with checked arrays."""

import numpy as np
from numba import get_num_threads

from numbanet.cpu import encoding_kernels as kernels
from numbanet.encodings.base import AbstractEncoding
from numbanet.engine import AlwaysDeterministic, Gradients, Service


class EncodingEngine(AlwaysDeterministic):
    """Engine of an encoding; arrays are float32 in rows of samples."""

    def __init__(self, encoding: AbstractEncoding):
        self._encoding, self._key = encoding, encoding.kernel_key()
        self._numbers = np.array(encoding.numbers, np.int64)

    def services(self) -> list[Service]:
        reason = f"tiles of samples, {get_num_threads()} threads; float32 is all a CPU has"
        return [Service("all passes", "CPU, a kernel for each pass", reason)]

    def forward(
        self, inputs: np.ndarray, params: np.ndarray, outputs: np.ndarray | None = None
    ) -> np.ndarray:
        """Features [n, n_outputs], in a given array or in a new one."""
        if outputs is None:
            outputs = np.empty((inputs.shape[0], self._encoding.n_outputs), np.float32)
        kernels.forward_kernel(self._key)(inputs, params, self._numbers, outputs)
        return outputs

    def backward(
        self,
        inputs: np.ndarray,
        params: np.ndarray,
        dl_dy: np.ndarray,
        gradients: Gradients | None,
        dl_dx: np.ndarray | None,
    ) -> None:
        """Add to `gradients` and write `dl_dx`, where they are given."""
        if gradients is not None:
            kernel = kernels.backward_params_kernel(self._key)
            kernel(inputs, params, self._numbers, dl_dy, gradients.flat)
        if dl_dx is not None:
            kernels.backward_input_kernel(self._key)(inputs, params, self._numbers, dl_dy, dl_dx)

    def double_backward(
        self,
        inputs: np.ndarray,
        params: np.ndarray,
        dl_dy: np.ndarray,
        dl_ddl_dx: np.ndarray,
        gradients: Gradients | None,
        outputs: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients with respect to dl_dy and the inputs, in given arrays or in new ones; adds to
        `gradients`.
        """
        if gradients is not None:
            kernel = kernels.double_backward_params_kernel(self._key)
            kernel(inputs, params, self._numbers, dl_dy, dl_ddl_dx, gradients.flat)
        outputs = outputs or (np.empty_like(dl_dy), np.empty_like(inputs))
        kernel = kernels.double_backward_input_kernel(self._key)
        kernel(inputs, params, self._numbers, dl_dy, dl_ddl_dx, *outputs)
        return outputs
