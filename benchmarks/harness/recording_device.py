"""A GPU that is not there, behind PyTorch's tensors of the CPU: to time the host's part alone."""

import torch

from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.target import CudaTarget
from numbanet.torch import evaluator
from numbanet.torch.tensor_memory import TensorMemory


class RecordingDevice(TensorMemory, CompileOnlyDevice):
    """Stand-in for numbanet.torch.device.TensorDevice; its launches do nothing."""

    def __init__(self):
        super().__init__((9, 0), False)

    def use_current_stream(self):
        self.launches.clear()

    def can_capture(self):
        return True

    def empty(self, shape, dtype):
        return torch.empty(shape, dtype=dtype)


def stand_in() -> None:
    """Make numbanet.torch take the tensors of the CPU for those of such a GPU, from now on."""
    device = RecordingDevice()
    evaluator.target_of = lambda device_of_tensors, precision: CudaTarget(device, precision)
