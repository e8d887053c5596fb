"""PyTorch: eager, and one compiled step.

Both keep the two features of the table in vectors of their own (gathers and scatters of single
floats take PyTorch's quick path, those of pairs do not) and work on blocks of samples whose
intermediate results stay in the cache. Adam is dense: torch.optim.Adam knows no skipped entries.
"""

import numpy as np
import torch

from benchmarks.harness.grid import HASH_PRIME, LEVELS
from benchmarks.harness.reference import split
from benchmarks.harness.samples import BETA1, BETA2, HASH, LEARNING_RATE, LOSS_EPSILON
from benchmarks.methods.method import Method

EPSILON, L2_REG = HASH["optimizer"]["epsilon"], HASH["optimizer"]["l2_reg"]

BLOCK, COMPILED_BLOCK = 2**12, 2**14
N_LEVELS, N_DENSE = len(LEVELS), sum(not level.hashed for level in LEVELS)
HASH_MASK = LEVELS[-1].n_entries - 1
PRIME = HASH_PRIME - 2**32  # as int32, which wraps as uint32 does


def per_level(values, dtype):
    return torch.tensor(values, dtype=dtype)[:, None, None, None]


SCALES = per_level([level.scale for level in LEVELS], torch.float32)
OFFSETS = per_level([level.offset for level in LEVELS], torch.int32)
RESOLUTIONS = per_level([level.resolution for level in LEVELS[:N_DENSE]], torch.int32)
SIZES = per_level([level.n_entries for level in LEVELS[:N_DENSE]], torch.int32)
HALF = torch.tensor(0.5)


def corners(positions):
    """Return entries and weights, each [levels, 4, n]."""
    n = positions.shape[0]
    at = torch.addcmul(HALF, SCALES, positions.T[None, :, None])  # [levels, 2, 1, n]
    cell = at.floor()
    fraction = at - cell
    cell = cell.int()
    x, y = torch.cat((cell, cell + 1), 2).unbind(1)  # [levels, 2, n]
    weight_x, weight_y = torch.cat((1 - fraction, fraction), 2).unbind(1)
    x, y = x[:, None], y[:, :, None]
    dense = x[:N_DENSE] + y[:N_DENSE] * RESOLUTIONS
    dense = torch.where(dense >= SIZES, dense - SIZES, dense)
    hashed = (x[N_DENSE:] ^ (y[N_DENSE:] * PRIME)) & HASH_MASK
    entries = (torch.cat((dense, hashed)) + OFFSETS).long()
    weights = weight_x[:, None] * weight_y[:, :, None]
    return entries.view(N_LEVELS, 4, n), weights.view(N_LEVELS, 4, n)


def interpolate(table, entries, weights):
    """Return the features [32, n]."""
    features = [
        (column.index_select(0, entries.view(-1)).view_as(weights) * weights).sum(1)
        for column in table
    ]
    return torch.stack(features, 1).view(2 * N_LEVELS, -1)


def scatter(dl_dtable, entries, weights, dl_dfeatures):
    dl_dfeatures = dl_dfeatures.view(N_LEVELS, 2, 1, -1)
    for feature, dl_dcolumn in enumerate(dl_dtable):
        updates = dl_dfeatures[:, feature] * weights
        dl_dcolumn.scatter_add_(0, entries.view(-1), updates.view(-1))


def network(matrices, features):
    """Return the outputs [3, n]."""
    first, second, third = matrices
    hidden = torch.relu(first @ features)
    hidden = torch.relu(second @ hidden)
    return third @ hidden


class TorchEager(Method):
    skips_zero_gradients = False

    def __init__(self, job, params):
        *matrices, table = split(params, job.shapes)
        self.matrices = [torch.tensor(matrix, requires_grad=True) for matrix in matrices]
        self.table = [torch.tensor(column, requires_grad=True) for column in table.T.copy()]
        for param in (*self.matrices, *self.table):
            param.grad = torch.zeros_like(param)
        groups = [{"params": self.matrices, "weight_decay": L2_REG}, {"params": self.table}]
        self.optimizer = torch.optim.Adam(
            groups, lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON, fused=True
        )

    def versions(self):
        return {"torch": torch.__version__}

    def place(self, array):
        return torch.tensor(array)

    def backward(self, positions, targets):
        """Put the gradients where the optimizer looks for them and return the loss."""
        self.optimizer.zero_grad(set_to_none=False)
        value = 0
        for x, target in zip(positions.split(BLOCK), targets.split(BLOCK), strict=True):
            with torch.no_grad():
                entries, weights = corners(x)
                features = interpolate(self.table, entries, weights)
            features.requires_grad_()
            outputs = network(self.matrices, features)
            scale = 1 / (outputs.detach() ** 2 + LOSS_EPSILON)
            loss = ((outputs - target.T) ** 2 * scale).sum() / targets.numel()
            loss.backward()
            scatter([column.grad for column in self.table], entries, weights, features.grad)
            value = value + loss.detach()
        return value

    def step(self, positions, targets):
        value = self.backward(positions, targets)
        self.optimizer.step()
        return value

    @torch.inference_mode()
    def inference(self, positions):
        outputs = [
            network(self.matrices, interpolate(self.table, *corners(block)))
            for block in positions.split(BLOCK)
        ]
        return torch.cat(outputs, 1).T

    def loss_and_gradients(self, positions, targets):
        value = self.backward(positions, targets)
        gradients = [[param.grad for param in part] for part in (self.matrices, self.table)]
        return float(value), flatten(*gradients)

    def params(self):
        return flatten(self.matrices, self.table)


def corners_by_level(positions):
    """corners() unrolled over the levels: constants then become part of the compiled code."""
    entries, weights = [], []
    for level in LEVELS:
        at = positions.T * level.scale + 0.5
        cell = at.floor()
        right, down = at - cell
        x, y = cell.int()
        for dx, dy in (0, 0), (1, 0), (0, 1), (1, 1):
            if level.hashed:
                entry = ((x + dx) ^ ((y + dy) * PRIME)) & HASH_MASK
            else:
                entry = (x + dx) + (y + dy) * level.resolution
                entry = torch.where(entry >= level.n_entries, entry - level.n_entries, entry)
            entries.append(entry + level.offset)
            weights.append((right if dx else 1 - right) * (down if dy else 1 - down))
    shape = (len(LEVELS), 4, -1)
    return torch.stack(entries).view(shape), torch.stack(weights).view(shape)


def interpolate_by_indexing(table, entries, weights):
    features = [(column[entries] * weights).sum(1) for column in table]
    return torch.stack(features, 1).view(2 * N_LEVELS, -1)


def total_loss(matrices, features, targets):
    outputs = network(matrices, features)
    return ((outputs - targets.T) ** 2 / (outputs.detach() ** 2 + LOSS_EPSILON)).sum()


@torch.compile(dynamic=False)
def add_gradients(matrices, table, positions, targets, mean, dl_dmatrices, dl_dtable):
    entries, weights = corners_by_level(positions)
    features = interpolate_by_indexing(table, entries, weights)
    (to_add, dl_dfeatures), value = torch.func.grad_and_value(total_loss, argnums=(0, 1))(
        matrices, features, targets
    )
    for total, gradient in zip(dl_dmatrices, to_add, strict=True):
        total.add_(gradient * mean)
    dl_dfeatures = dl_dfeatures.view(N_LEVELS, 2, 1, -1) * mean
    for feature, total in enumerate(dl_dtable):
        updates = dl_dfeatures[:, feature] * weights
        total.index_put_((entries.view(-1),), updates.view(-1), accumulate=True)
    return value * mean


@torch.compile(dynamic=False)
def adam(params, gradients, states):
    """Update parameters and states in place; entries without a gradient stay as they are."""
    for param, gradient, (first, second, power1, power2) in zip(
        params, gradients, states, strict=True
    ):
        is_matrix = param.ndim == 2
        active = torch.ones_like(param, dtype=torch.bool) if is_matrix else gradient != 0
        g = gradient + L2_REG * param if is_matrix else gradient
        power1.copy_(torch.where(active, power1 * BETA1, power1).clamp_min(1e-30))
        power2.copy_(torch.where(active, power2 * BETA2, power2).clamp_min(1e-30))
        first.copy_(torch.where(active, BETA1 * first + (1 - BETA1) * g, first))
        second.copy_(torch.where(active, BETA2 * second + (1 - BETA2) * g * g, second))
        rate = LEARNING_RATE * torch.sqrt(1 - power2) / (1 - power1)
        change = rate * first / (torch.sqrt(second) + EPSILON)
        param.copy_(torch.where(active, param - change, param))
        gradient.zero_()


@torch.compile(dynamic=False)
def infer(matrices, table, positions):
    return network(matrices, interpolate_by_indexing(table, *corners_by_level(positions)))


class TorchCompiled(TorchEager):
    skips_zero_gradients = True

    def __init__(self, job, params):
        *matrices, table = split(params, job.shapes)
        self.matrices = [torch.tensor(matrix) for matrix in matrices]
        self.table = [torch.tensor(column) for column in table.T.copy()]
        self.gradients = [
            [torch.zeros_like(param) for param in part] for part in (self.matrices, self.table)
        ]
        self.states = [
            [torch.full_like(param, value) for value in (0, 0, 1, 1)]
            for param in (*self.matrices, *self.table)
        ]

    @torch.no_grad()
    def backward(self, positions, targets):
        value, mean = 0, torch.tensor(1 / targets.numel())  # as a number it would be compiled in
        for x, target in zip(
            positions.split(COMPILED_BLOCK), targets.split(COMPILED_BLOCK), strict=True
        ):
            value = value + add_gradients(
                self.matrices, self.table, x, target, mean, *self.gradients
            )
        return value

    @torch.no_grad()
    def step(self, positions, targets):
        value = self.backward(positions, targets)
        gradients = [gradient for part in self.gradients for gradient in part]
        adam([*self.matrices, *self.table], gradients, self.states)
        return value

    @torch.inference_mode()
    def inference(self, positions):
        blocks = positions.split(COMPILED_BLOCK)
        return torch.cat([infer(self.matrices, self.table, x) for x in blocks], 1).T

    def loss_and_gradients(self, positions, targets):
        value = self.backward(positions, targets)
        result = float(value), flatten(*self.gradients)
        for part in self.gradients:
            for gradient in part:
                gradient.zero_()
        return result


def flatten(matrices, table):
    parts = [*matrices, torch.stack(list(table), 1)]
    return np.concatenate([part.detach().numpy().ravel() for part in parts])
