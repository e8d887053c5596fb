"""PyTorch: eager and compiled, with autocast to float16, gradient scaling and the fused Adam.

The grid is one gather for all corners of all levels, by index_select, whose backward pass adds with
atomics (indexing would sort). The compiled functions take any batch size. Adam is dense.
"""

import torch

from benchmarks.harness.reference import split
from benchmarks.harness.samples import BETA1, BETA2, LEARNING_RATE, LOSS_EPSILON
from benchmarks.methods.method import Method

DEVICE = "cuda"
if not torch.cuda.is_available():
    raise ImportError("this PyTorch finds no GPU")

with torch.device(DEVICE):  # where its constants go
    from benchmarks.methods.torch_cpu import corners


def grid(table, positions):
    """Return the features [n, 32]."""
    with torch.no_grad():
        entries, weights = corners(positions)  # [levels, 4, n]
        entries = entries.view(-1).int()
    values = table.index_select(0, entries).view(*weights.shape, 2)
    return (values * weights[..., None]).sum(1).transpose(0, 1).flatten(1)


def one_blob(positions, n_bins):
    """Return the features [n, 2 * n_bins]; distances are wrapped around once."""
    left = torch.arange(n_bins, device=positions.device) - n_bins * positions[:, :, None]
    left = left - n_bins * torch.floor((left + n_bins / 2) / n_bins)
    return (blob_integral(left + 1) - blob_integral(left)).flatten(1)


def blob_integral(u):
    u = u.clamp(-1, 1)
    q = u * u
    return 0.5 + u * (15 / 16 + q * (3 / 16 * q - 5 / 8))


def relative_l2(outputs, targets):
    return ((outputs - targets) ** 2 / (outputs.detach() ** 2 + LOSS_EPSILON)).mean()


class TorchEager(Method):
    precision = "float16"
    skips_zero_gradients = False

    def __init__(self, job, params):
        *matrices, table = split(params, job.shapes)
        self.matrices = [self.parameter(matrix) for matrix in matrices]
        self.table = self.parameter(table)
        self.encoding, self.n_bins = job.encoding, job.config["encoding"].get("n_bins")
        groups = [{"params": self.matrices, "weight_decay": job.l2_reg}]
        if job.n_entries:
            groups.append({"params": [self.table]})
        self.optimizer = torch.optim.Adam(
            groups, lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=job.epsilon, fused=True
        )
        # The scale of tiny-cuda-nn, which never has to change here
        self.scaler = torch.amp.GradScaler(DEVICE, init_scale=128.0, growth_interval=2**30)
        self.stream = torch.cuda.current_stream().cuda_stream

    def parameter(self, values):
        return torch.nn.Parameter(torch.tensor(values, device=DEVICE))

    def versions(self):
        return {"torch": torch.__version__, "CUDA of torch": torch.version.cuda}

    def place(self, array):
        placed = torch.tensor(array, device=DEVICE)
        torch._dynamo.maybe_mark_dynamic(placed, 0)  # one compilation for all batch sizes
        return placed

    def wait(self, result):
        torch.cuda.synchronize()
        return result

    def outputs(self, inputs):
        if self.encoding == "HashGrid":
            hidden = grid(self.table, inputs)
        elif self.encoding == "OneBlob":
            hidden = one_blob(inputs, self.n_bins)
        else:
            hidden = inputs
        with torch.autocast(DEVICE, torch.float16):
            *first, last = self.matrices
            for matrix in first:
                hidden = torch.relu(torch.nn.functional.linear(hidden, matrix))
            return torch.nn.functional.linear(hidden, last)

    def loss(self, inputs, targets):
        return relative_l2(self.outputs(inputs).float(), targets)

    def step(self, inputs, targets):
        self.optimizer.zero_grad()
        value = self.loss(inputs, targets)
        self.scaler.scale(value).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value.detach()

    @torch.no_grad()
    def inference(self, inputs):
        return self.outputs(inputs).float()

    def numpy(self, outputs):
        return outputs.cpu().numpy()


class TorchCompiled(TorchEager):
    def __init__(self, job, params):
        super().__init__(job, params)
        self.loss = torch.compile(self.loss)
        self.inference = torch.compile(self.inference)
