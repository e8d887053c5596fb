"""Float64 twins of the optimizers, formula by formula; nothing here comes from numbanet.

`step(w, g)` returns the new weights; `inference` holds those for inference after it, where they
are others, from the first step on.
"""

import re

import numpy as np


def size(shapes):
    return sum(rows * columns for rows, columns in shapes)


def shrink(relative, absolute, w):
    return (1 - relative) * w - np.copysign(absolute, w)


class Adam:
    """Kingma and Ba 2015, with a step counter of its own for every parameter."""

    def __init__(
        self,
        n_params,
        shapes,
        learning_rate=1e-3,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        l2_reg=1e-8,
        adabound=False,
        relative_decay=0.0,
        absolute_decay=0.0,
        clipping_magnitude=0.0,
        gradient_clipping_magnitude=0.0,
        non_matrix_learning_rate_factor=1.0,
        non_matrix_l2_reg=0.0,
        optimize_matrix_params=True,
        optimize_non_matrix_params=True,
        skip_zero_grad_non_matrix_params=True,
    ):
        vars(self).update({key: value for key, value in locals().items() if key != "self"})
        self.n_matrix_params = size(shapes)
        self.m, self.v, self.k = np.zeros((3, n_params))
        self.t = 0

    def step(self, w, g):
        """The new weights."""
        self.t += 1
        is_matrix = np.arange(self.n_params) < self.n_matrix_params
        moves = np.where(is_matrix, self.optimize_matrix_params, self.optimize_non_matrix_params)
        if self.skip_zero_grad_non_matrix_params:
            moves = moves & (is_matrix | (g != 0))
        g = g + np.where(is_matrix, self.l2_reg, self.non_matrix_l2_reg) * w
        if self.gradient_clipping_magnitude != 0:
            g = np.clip(g, -self.gradient_clipping_magnitude, self.gradient_clipping_magnitude)
        m = self.beta1 * self.m + (1 - self.beta1) * g
        v = self.beta2 * self.v + (1 - self.beta2) * g**2
        k = self.k + 1
        factor = np.where(is_matrix, 1.0, self.non_matrix_learning_rate_factor)
        rate = self.learning_rate * factor
        rate = rate * np.sqrt(1 - self.beta2**k) / (1 - self.beta1**k)
        low, high = 0.0, np.inf
        if self.adabound:
            low = 0.1 - 0.1 / ((1 - self.beta2) * self.t + 1)
            high = 0.1 + 0.1 / ((1 - self.beta2) * self.t)
        effective = np.clip(rate / (np.sqrt(v) + self.epsilon), low, high)
        new = shrink(self.relative_decay * rate, self.absolute_decay * rate, w) - effective * m
        if self.clipping_magnitude != 0:
            new = np.clip(new, -self.clipping_magnitude, self.clipping_magnitude)
        self.m, self.v, self.k = (
            np.where(moves, after, before)
            for after, before in ((m, self.m), (v, self.v), (k, self.k))
        )
        return np.where(moves, new, w)


class AdamW(Adam):
    """Loshchilov and Hutter 2019, algorithm 2, for what Adam moves."""

    def __init__(self, n_params, shapes, weight_decay=0.01, non_matrix_weight_decay=0.0, **options):
        super().__init__(n_params, shapes, **options, l2_reg=0.0)
        self.decays = weight_decay, non_matrix_weight_decay

    def step(self, w, g):
        k = self.k.copy()
        new, factor = super().step(w, g), self.non_matrix_learning_rate_factor
        is_matrix = np.arange(self.n_params) < self.n_matrix_params
        decay = np.where(is_matrix, self.decays[0], factor * self.decays[1])
        return np.where(self.k > k, new - self.learning_rate * decay * w, w)


class SGD:
    def __init__(self, n_params, shapes, learning_rate=1e-3, l2_reg=1e-8):
        self.learning_rate, self.l2_reg = learning_rate, l2_reg

    def step(self, w, g):
        return w - self.learning_rate * (g + self.l2_reg * w)


class Novograd:
    """A norm for each matrix, and one for all that is no matrix."""

    def __init__(
        self,
        n_params,
        shapes,
        learning_rate=1e-3,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        relative_decay=0.0,
        absolute_decay=0.0,
    ):
        vars(self).update({key: value for key, value in locals().items() if key != "self"})
        self.m = np.zeros(n_params)
        ends = np.cumsum([size([shape]) for shape in shapes])
        self.parts = [part for part in np.split(np.arange(n_params), ends) if len(part)]
        self.v = np.zeros(len(self.parts))
        self.t = 0

    def step(self, w, g):
        self.t += 1
        beta1, beta2 = (0, 0) if self.t == 1 else (self.beta1, self.beta2)
        w = np.array(w)
        for k, part in enumerate(self.parts):
            self.v[k] = beta2 * self.v[k] + (1 - beta2) * np.sum(g[part] ** 2)
            normed = g[part] / (np.sqrt(self.v[k]) + self.epsilon)
            self.m[part] = beta1 * self.m[part] + (1 - beta1) * normed
            rate = self.learning_rate
            kept = shrink(self.relative_decay * rate, self.absolute_decay * rate, w[part])
            w[part] = kept - rate * self.m[part]
        return w


class RunningMean:
    """An exponential average without the bias of its start."""

    def __init__(self, decay):
        self.decay, self.total, self.weight = decay, 0.0, 0.0

    def add(self, value):
        self.total = self.decay * self.total + (1 - self.decay) * value
        self.weight = self.decay * self.weight + (1 - self.decay)
        return self.total / self.weight


class Shampoo:
    """Inverse roots from eigenvalues."""

    def __init__(
        self,
        n_params,
        shapes,
        learning_rate=1e-3,
        beta1=0.9,
        beta2=0.99,
        beta3=0.9,
        beta_shampoo=0.9,
        epsilon=1e-8,
        identity=0.01,
        cg_on_momentum=True,
        l2_reg=1e-5,
        relative_decay=0.0,
        absolute_decay=0.0,
        frobenius_normalization=True,
    ):
        vars(self).update({key: value for key, value in locals().items() if key != "self"})
        self.m1, self.m2 = RunningMean(beta1), RunningMean(beta2)
        self.covariances = [[RunningMean(beta3), RunningMean(beta3)] for _ in shapes]
        self.roots = [None for _ in shapes]
        self.directions = [RunningMean(beta_shampoo) for _ in shapes]
        self.t = 0

    def step(self, w, gradient):
        self.t += 1
        g = gradient + self.l2_reg * w
        m = self.m1.add(g) / (np.sqrt(self.m2.add(g**2)) + self.epsilon)
        w, first = np.array(w), 0
        for k, shape in enumerate(self.shapes):
            part = slice(first, first + size([shape]))
            first = part.stop
            step = self.direction(k, m[part].reshape(shape), gradient[part].reshape(shape))
            if step is not None:
                w[part] = self.moved(w[part], *step)
        w[first:] = self.moved(w[first:], self.learning_rate, m[first:])
        return w

    def direction(self, k, m, gradient):
        """Learning rate and direction of a matrix."""
        g = m if self.cg_on_momentum else gradient
        both = [
            mean.add(x) for mean, x in zip(self.covariances[k], (g @ g.T, g.T @ g), strict=True)
        ]
        if self.t == 1 or self.t % (10 if self.t < 100 else 200) == 0:
            self.roots[k] = [self.inverse_root(x) for x in both]
        if self.t == 1:
            return None
        s = self.directions[k].add(self.roots[k][0] @ m @ self.roots[k][1])
        ratio = np.linalg.norm(m) / np.linalg.norm(s) if self.frobenius_normalization else 1.0
        return self.learning_rate * ratio, s.reshape(-1)

    def inverse_root(self, x):
        values, vectors = np.linalg.eigh((1 - self.identity) * x + self.identity * np.eye(len(x)))
        return (vectors * values**-0.25) @ vectors.T

    def moved(self, w, rate, direction):
        return shrink(self.relative_decay * rate, self.absolute_decay * rate, w) - rate * direction


class WithAdam:
    """Directions of matrices, and Adam for the rest."""

    def start(self, n_params, shapes, beta1, beta2, epsilon):
        self.shapes, self.n_matrix_params, self.t = shapes, size(shapes), 0
        n_others = n_params - self.n_matrix_params
        options = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon}
        self.adam = Adam(n_others, (), **options)

    def step(self, w, g):
        self.t += 1
        w, first = np.array(w), 0
        for k, shape in enumerate(self.shapes):
            part = slice(first, first + size([shape]))
            first = part.stop
            direction = self.direction(k, g[part].reshape(shape)).reshape(-1)
            w[part] -= self.learning_rate * (direction + self.weight_decay * w[part])
        self.adam.learning_rate = self.adam_learning_rate * self.factor
        w[first:] = self.adam.step(w[first:], g[first:])
        return w

    @property
    def factor(self):
        """What schedules around it have multiplied the learning rate by."""
        return self.learning_rate / self.first_rate


class Muon(WithAdam):
    def __init__(
        self,
        n_params,
        shapes,
        learning_rate=0.02,
        momentum=0.95,
        nesterov=True,
        n_iterations=5,
        weight_decay=0.0,
        adam_learning_rate=1e-3,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
    ):
        vars(self).update({key: value for key, value in locals().items() if key != "self"})
        self.first_rate = learning_rate
        self.start(n_params, shapes, beta1, beta2, epsilon)
        self.momenta = [np.zeros(shape) for shape in shapes]

    def direction(self, k, g):
        m = self.momenta[k] = self.momentum * self.momenta[k] + (1 - self.momentum) * g
        d = (1 - self.momentum) * g + self.momentum * m if self.nesterov else m
        norm = np.linalg.norm(d)
        x = d / norm if norm > 1e-15 else 0 * d
        for _ in range(self.n_iterations):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return max(1, g.shape[0] / g.shape[1]) ** 0.5 * x


class SOAP(WithAdam):
    """Bases from QR decompositions, whose diagonals are positive."""

    def __init__(
        self,
        n_params,
        shapes,
        learning_rate=3e-3,
        matrix_beta1=0.95,
        matrix_beta2=0.95,
        shampoo_beta=0.95,
        interval=10,
        weight_decay=0.0,
        adam_learning_rate=1e-3,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
    ):
        vars(self).update({key: value for key, value in locals().items() if key != "self"})
        self.first_rate = learning_rate
        self.start(n_params, shapes, beta1, beta2, epsilon)
        self.means = [
            [RunningMean(beta) for beta in (matrix_beta1, matrix_beta2, shampoo_beta, shampoo_beta)]
            for _ in shapes
        ]
        self.bases = [[np.eye(n) for n in shape] for shape in shapes]

    def direction(self, k, g):
        of_m, of_v, of_left, of_right = self.means[k]
        (p, q), m = self.bases[k], of_m.add(g)
        direction = np.zeros_like(g)
        if self.t > 1:
            turned = p.T @ m @ q / (np.sqrt(of_v.add((p.T @ g @ q) ** 2)) + self.epsilon)
            direction = p @ turned @ q.T
        covariances = of_left.add(g @ g.T), of_right.add(g.T @ g)
        n_rounds = 8 if self.t == 1 else int(self.t % self.interval == 0)
        for _ in range(n_rounds):
            pairs = zip(self.bases[k], covariances, strict=True)
            self.bases[k] = [self.turned(*pair) for pair in pairs]
        return direction

    def turned(self, basis, covariance):
        damped = covariance + 1e-3 * np.trace(covariance) / len(basis) * np.eye(len(basis))
        q, r = np.linalg.qr(damped @ basis)
        return q * np.where(np.diagonal(r) < 0, -1, 1)


class EMA:
    def __init__(self, n_params, shapes, nested=None, decay=0.99, full_precision=False):
        self.nested = optimizer(nested or {}, n_params, shapes)
        self.decay, self.t = decay, 0

    def step(self, w, g):
        self.t += 1
        w = self.nested.step(w, g)
        value = getattr(self.nested, "inference", w)
        before = self.inference if self.t > 1 else 0
        biased = before * self.decay * (1 - self.decay ** (self.t - 1))
        self.inference = (biased + value * (1 - self.decay)) / (1 - self.decay**self.t)
        return w


class Average:
    def __init__(self, n_params, shapes, nested=None, n_samples=128):
        self.nested = optimizer(nested or {}, n_params, shapes)
        self.n_samples, self.samples = n_samples, []

    def step(self, w, g):
        w = self.nested.step(w, g)
        self.samples = [*self.samples, np.array(w)][-self.n_samples :]
        self.inference = np.mean(self.samples, axis=0)
        return w


class Lookahead:
    def __init__(self, n_params, shapes, nested=None, alpha=0.5, n_steps=16):
        self.nested = optimizer(nested or {}, n_params, shapes)
        self.alpha, self.n_steps, self.n_done = alpha, n_steps, 0

    def step(self, w, g):
        if self.n_done == 0:
            self.inference = np.array(w)
        if self.n_done % self.n_steps == 0:
            w = self.inference = (1 - self.alpha) * self.inference + self.alpha * w
        self.n_done += 1
        return self.nested.step(w, g)


class Wrapper:
    """Shows what the nested one has for inference."""

    def step(self, w, g):
        w = self.step_nested(w, g)
        if hasattr(self.nested, "inference"):
            self.inference = self.nested.inference
        return w


class Batched(Wrapper):
    def __init__(self, n_params, shapes, nested=None, batch_size_multiplier=16):
        self.nested = optimizer(nested or {}, n_params, shapes)
        self.multiplier, self.gradients = batch_size_multiplier, []

    def step_nested(self, w, g):
        self.gradients.append(g)
        if len(self.gradients) < self.multiplier:
            return w
        mean = np.mean(self.gradients, axis=0)
        self.gradients = []
        return self.nested.step(w, mean)


class Schedule(Wrapper):
    """Sets the learning rates inside before each step, to the first ones times a factor."""

    n_done = 0

    def step_nested(self, w, g):
        before = learning_rates(self.nested)
        scale_learning_rate(self.nested, self.factor(self.n_done))
        self.n_done += 1
        w = self.nested.step(w, g)
        set_learning_rates(self.nested, before)
        return w


class ExponentialDecay(Schedule):
    def __init__(
        self,
        n_params,
        shapes,
        nested=None,
        decay_base=0.1,
        decay_start=10_000,
        decay_end=10_000_000,
        decay_interval=10_000,
    ):
        self.nested = optimizer(nested or {}, n_params, shapes)
        self.base, self.start, self.end = decay_base, decay_start, decay_end
        self.interval = decay_interval

    def factor(self, s):
        return self.base ** len(range(self.start, min(s, self.end) + 1, self.interval))


class CosineDecay(Schedule):
    def __init__(
        self, n_params, shapes, nested=None, n_steps=10_000, decay_start=0, end_factor=0.0
    ):
        self.nested = optimizer(nested or {}, n_params, shapes)
        self.n_steps, self.start, self.end = n_steps, decay_start, end_factor

    def factor(self, s):
        u = np.clip((s - self.start) / self.n_steps, 0, 1)
        return self.end + (1 - self.end) * (1 + np.cos(np.pi * u)) / 2


class WarmUp(Schedule):
    def __init__(self, n_params, shapes, nested=None, n_steps=1000, start_factor=0.0):
        self.nested = optimizer(nested or {}, n_params, shapes)
        self.n_steps, self.start = n_steps, start_factor

    def factor(self, s):
        return self.start + (1 - self.start) * min((s + 1) / self.n_steps, 1)


class Piecewise(Schedule):
    def __init__(self, n_params, shapes, nested=None, points=((0, 1.0),)):
        self.nested = optimizer(nested or {}, n_params, shapes)
        self.points = points

    def factor(self, s):
        before = [point for point in self.points if point[0] <= s]
        after = [point for point in self.points if point[0] > s]
        if not (before and after):
            return (before or after)[-1 if before else 0][1]
        (s0, low), (s1, high) = before[-1], after[0]
        return low + (high - low) * (s - s0) / (s1 - s0)


class ParamGroups(Wrapper):
    """Moves parameters by factors of what the nested one does, and decays them; by their names."""

    def __init__(self, n_params, shapes, nested=None, groups=()):
        self.nested = optimizer(nested or {}, n_params, shapes)
        n_matrix, starts, parts = 0, {}, {}
        for k, shape in enumerate(shapes):
            starts[f"network.{k}"] = n_matrix
            n_matrix += size([shape])
            parts[f"network.{k}"] = slice(starts[f"network.{k}"], n_matrix)
        parts["encoding.params"] = slice(n_matrix, n_params)
        self.factors, self.decays = np.ones(n_params), np.zeros(n_params)
        for group in reversed(groups):
            names = [group["parts"]] if isinstance(group["parts"], str) else group["parts"]
            for name, part in parts.items():
                if any(re.fullmatch(each.replace("*", ".*"), name) for each in names):
                    self.factors[part] = group.get("learning_rate_factor", 1.0)
                    self.decays[part] = group.get("weight_decay", 0.0)

    def step_nested(self, w, g):
        (rate,) = learning_rates(self.nested)
        moved = self.nested.step(np.array(w), g)
        return w + self.factors * (moved - w - rate * self.decays * w)


def scale_learning_rate(optimizer, factor):
    set_learning_rates(optimizer, [rate * factor for rate in learning_rates(optimizer)])


def innermost(optimizer):
    """The optimizers inside that have a learning rate of their own."""
    nested = getattr(optimizer, "parts_nested", [getattr(optimizer, "nested", None)])
    if nested == [None]:
        return [optimizer]
    return [inner for each in nested for inner in innermost(each)]


def learning_rates(optimizer):
    return [each.learning_rate for each in innermost(optimizer)]


def set_learning_rates(optimizer, rates):
    for each, rate in zip(innermost(optimizer), rates, strict=True):
        each.learning_rate = rate


class Composite:
    def __init__(self, n_params, shapes, nested=(), learning_rate=1.0):
        self.parts_nested, self.parts = [], []
        first, matrix_first = 0, 0
        shapes = list(shapes)
        for config in nested:
            options = dict(config)
            last = first + options.pop("n_params_to_optimize")
            mine = []
            while shapes and matrix_first < last:
                matrix_first += size(shapes[:1])
                mine.append(shapes.pop(0))
            self.parts_nested.append(optimizer(options, last - first, mine))
            scale_learning_rate(self.parts_nested[-1], learning_rate)
            self.parts.append(slice(first, last))
            first = last
        assert first == n_params

    def step(self, w, g):
        pairs = list(zip(self.parts_nested, self.parts, strict=True))
        w = np.concatenate([nested.step(w[part], g[part]) for nested, part in pairs])
        if any(hasattr(nested, "inference") for nested, _ in pairs):
            self.inference = np.concatenate(
                [getattr(nested, "inference", w[part]) for nested, part in pairs]
            )
        return w


OPTIMIZERS = {
    "adam": Adam,
    "adamw": AdamW,
    "average": Average,
    "batched": Batched,
    "composite": Composite,
    "cosinedecay": CosineDecay,
    "ema": EMA,
    "exponentialdecay": ExponentialDecay,
    "lookahead": Lookahead,
    "muon": Muon,
    "novograd": Novograd,
    "paramgroups": ParamGroups,
    "piecewise": Piecewise,
    "sgd": SGD,
    "shampoo": Shampoo,
    "soap": SOAP,
    "warmup": WarmUp,
}


def optimizer(config, n_params, shapes):
    """The twin of the optimizer with this config, for matrices of these shapes and a rest."""
    options = {key: value for key, value in config.items() if key != "otype"}
    return OPTIMIZERS[config.get("otype", "Adam").lower()](n_params, shapes, **options)
