"""An encoding by itself on the CPU: calls its kernels with arrays that were checked before."""

import numpy as np

from numbanet.cpu import encoding_kernels
from numbanet.encodings.base import AbstractEncoding
from numbanet.target import Gradients


class EncodingEngine:
    """Arrays are float32 in rows of samples; features start at a column of wider rows."""

    def __init__(self, encoding: AbstractEncoding, width: int, column: int):
        self._encoding, self._width, self._column = encoding, width, column

    def forward(self, inputs: np.ndarray, params: np.ndarray) -> np.ndarray:
        """Features and padding [n, width]."""
        outputs = np.empty((inputs.shape[0], self._width), np.float32)
        kernel = encoding_kernels.forward_kernel(self._encoding, self._column)
        kernel(inputs, params, outputs)
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
            kernel = encoding_kernels.backward_params_kernel(self._encoding, self._column)
            kernel(inputs, dl_dy, gradients.flat)
        if dl_dx is not None:
            kernel = encoding_kernels.backward_input_kernel(self._encoding, self._column)
            kernel(inputs, params, dl_dy, dl_dx)

    def double_backward(
        self,
        inputs: np.ndarray,
        params: np.ndarray,
        dl_dy: np.ndarray,
        dl_ddl_dx: np.ndarray,
        gradients: Gradients | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The gradients with respect to dl_dy and the inputs; adds to `gradients`."""
        encoding, column = self._encoding, self._column
        if gradients is not None:
            kernel = encoding_kernels.double_backward_params_kernel(encoding, column)
            kernel(inputs, dl_dy, dl_ddl_dx, gradients.flat)
        dl_ddl_dy, dl_dx = np.zeros_like(dl_dy), np.empty_like(inputs)
        kernel = encoding_kernels.double_backward_input_kernel(encoding, column)
        kernel(inputs, params, dl_dy, dl_ddl_dx, dl_ddl_dy, dl_dx)
        return dl_ddl_dy, dl_dx
