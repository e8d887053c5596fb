"""A GPU that is not there, behind PyTorch's tensors of the CPU: to time the host's part alone."""

import torch

from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.target import CudaTarget
from numbanet.torch import evaluator


class RecordingDevice(CompileOnlyDevice):
    """Has the methods of numbanet.torch.device.TensorDevice; what it launches does nothing."""

    def __init__(self):
        super().__init__((9, 0), assembles=False)
        self._tensors = {}

    def use_current_stream(self):
        self.launches.clear()

    def empty(self, shape, dtype):
        return torch.empty(shape, dtype=dtype)

    def address_of(self, tensor):
        return tensor.data_ptr()

    def tensor_of(self, array):
        return torch.zeros(array.shape)

    def allocate(self, n_bytes):
        if n_bytes == 0:
            return 0
        tensor = torch.empty(n_bytes, dtype=torch.uint8)
        self._tensors[tensor.data_ptr()] = tensor
        return tensor.data_ptr()

    def free(self, address):
        self._tensors.pop(address, None)


def stand_in() -> None:
    """Let numbanet.torch take the tensors of the CPU for those of such a GPU, from now on."""
    device = RecordingDevice()
    evaluator.target_of = lambda device_of_tensors, precision: CudaTarget(device, precision)
