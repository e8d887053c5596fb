"""tiny-cuda-nn through its PyTorch bindings, with PyTorch's loss and fused Adam; also fused by JIT.

The bindings have no optimizer. They keep float32 parameters in one vector in the order of the job,
so decay, which is for matrices only, is left out: at 1e-6 it is below the tolerance.
"""

import importlib.metadata

import tinycudann
import torch

from benchmarks.harness.samples import BETA1, BETA2, LEARNING_RATE
from benchmarks.methods.method import Method
from benchmarks.methods.torch_gpu import DEVICE, relative_l2


class TinyCudaNN(Method):
    precision = "float16"
    skips_zero_gradients = False
    jit_fusion = False

    def __init__(self, job, params):
        parts = job.config["encoding"], job.config["network"]
        self.model = tinycudann.NetworkWithInputEncoding(job.n_inputs, job.n_outputs, *parts)
        if self.jit_fusion and not tinycudann.supports_jit_fusion():
            raise ImportError("this tiny-cuda-nn has no JIT fusion")
        if hasattr(self.model, "jit_fusion"):
            self.model.jit_fusion = self.jit_fusion
        own = self.model.params
        own.data = torch.tensor(job.padded(params, own.numel()), device=DEVICE)
        self.optimizer = torch.optim.Adam(
            [own], lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=job.epsilon, fused=True
        )
        self.stream = torch.cuda.current_stream().cuda_stream

    def versions(self):
        return {"tinycudann": importlib.metadata.version("tinycudann"), "torch": torch.__version__}

    def place(self, array):
        return torch.tensor(array, device=DEVICE)

    def wait(self, result):
        torch.cuda.synchronize()
        return result

    def step(self, inputs, targets):
        self.optimizer.zero_grad()
        value = relative_l2(self.model(inputs).float(), targets)
        value.backward()
        self.optimizer.step()
        return value.detach()

    @torch.no_grad()
    def inference(self, inputs):
        return self.model(inputs).float()

    def numpy(self, outputs):
        return outputs.cpu().numpy()


class TinyCudaNNJit(TinyCudaNN):
    jit_fusion = True
