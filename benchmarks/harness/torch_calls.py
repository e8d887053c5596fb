"""Calls and training steps of numbanet.torch from a program's point of view, beside tinycudann's.

Four models, each called as PyTorch programs do. A library's modules are made with the same seed and
so have the same parameters; what they compute is compared before anything is timed.
"""

import importlib.util
import json
import time

import numpy as np

import numbanet.torch as numbanet_torch  # isort: skip (before PyTorch: how OpenMP's threads wait)
import torch
from torch.nn.functional import mse_loss

HASH_15 = {"otype": "HashGrid", "n_levels": 16, "log2_hashmap_size": 15, "per_level_scale": 1.5}
HASH_19 = {**HASH_15, "log2_hashmap_size": 19, "per_level_scale": 1.38}
FREQUENCY = {"otype": "Frequency", "n_frequencies": 10}
BESIDE = {
    "otype": "Composite",
    "nested": [
        {**HASH_19, "n_dims_to_encode": 3},
        {"otype": "SphericalHarmonics", "degree": 4, "n_dims_to_encode": 3},
    ],
}


def network(n_neurons, n_hidden_layers):
    return {"otype": "FullyFusedMLP", "n_neurons": n_neurons, "n_hidden_layers": n_hidden_layers}


# name -> inputs, outputs, encoding, network
MODELS = {
    "hash 2-D": (2, 3, HASH_15, network(64, 2)),
    "hash 3-D 2^19": (3, 4, HASH_19, network(64, 2)),
    "grid and harmonics": (6, 4, BESIDE, network(64, 2)),
    "Frequency 64x4": (3, 4, FREQUENCY, network(64, 4)),
}
SECONDS, FEWEST, MOST = 0.04, 3, 200  # of a round; calls of a round
N_CHECKED = 1024
ALLOWED = 0.1  # relative to the norm; tinycudann adds gradients in halves


class Way:
    """Module with the tasks that are timed.

    Args:
        library: numbanet.torch or tinycudann.
        name: of the model.
        device: where it runs.
        dtype: of numbanet's outputs and, on a GPU, of what the kernels read; None for the default.
        options: attributes of the module.
        graph: whether training steps are captured in a CUDA graph and played again.
    """

    def __init__(self, library, name, device, dtype=None, graph=False, **options):
        n_inputs, n_outputs, encoding, config = MODELS[name]
        more = {"dtype": dtype} if library is numbanet_torch else {}
        with torch.device(device):
            self.module = library.NetworkWithInputEncoding(
                n_inputs, n_outputs, encoding, config, **more
            )
        for option, value in options.items():
            setattr(self.module, option, value)
        self.module.to(device)
        self.optimizer = torch.optim.Adam(
            self.module.parameters(), lr=1e-3, eps=1e-15, fused=True, capturable=graph
        )
        self.graphs = {} if graph else None

    @torch.no_grad()
    def call(self, x, y):
        return self.module(x)

    def loss(self, x, y):
        return mse_loss(self.module(x).float(), y)

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss

    def captured_step(self, x, y):
        if len(x) not in self.graphs:
            self.graphs[len(x)] = capture(lambda: self.step(x, y))
        self.graphs[len(x)].replay()

    def passes(self, x, y):
        """Outputs, and gradients of the parameters."""
        self.optimizer.zero_grad()
        outputs = self.call(x, y)
        self.loss(x, y).backward()
        return outputs.float(), self.module.params.grad.float()


class ModuleLoss(Way):
    """Module with the loss and its gradients in one pass."""

    def loss(self, x, y):
        return self.module.loss(x, y, "L2")


def capture(step):
    """A CUDA graph of a step, after some that are not captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def ways(name, device, dtype, left_out, graphs):
    """Methods by which a model is timed, and the tasks of each."""
    made = {
        "numbanet": (Way(numbanet_torch, name, device, dtype), ("call", "step")),
        "numbanet, module.loss": (ModuleLoss(numbanet_torch, name, device, dtype), ("step",)),
    }
    if device.type != "cuda":
        left_out["tinycudann"] = left_out["CUDA graphs"] = "needs CUDA"
        return made
    if importlib.util.find_spec("tinycudann") is None:
        left_out["tinycudann"] = "not installed"
    else:
        import tinycudann

        made["tinycudann"] = (Way(tinycudann, name, device), ("call", "step"))
        if getattr(tinycudann, "supports_jit_fusion", lambda: False)():
            fused = Way(tinycudann, name, device, jit_fusion=True)
            made["tinycudann, JIT"] = (fused, ("call", "step"))
    if graphs:  # last, because a capture that fails may take others with it
        captured = Way(numbanet_torch, name, device, graph=True)
        made["numbanet, captured"] = (captured, ("captured_step",))
    return made


def check(made, name, device, left_out):
    """Remove the methods that compute something else than the first one, or that fail."""
    x, y = batch(name, N_CHECKED, device)
    right = made["numbanet"][0].passes(x, y)
    for title in list(made):
        try:
            found = made[title][0].passes(x, y)
            wrong = max(
                ((a - b).norm() / b.norm()).item() for a, b in zip(found, right, strict=True)
            )
            if wrong > ALLOWED:
                raise ValueError(f"differs by {wrong:.1e}")
        except (RuntimeError, ValueError, TypeError, ImportError) as error:
            leave_out(made, title, f"{title}, {name}", error, left_out)


def leave_out(made, title, where, error, left_out):
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
    left_out[where] = text
    print(f"{where} is left out: {text}", flush=True)
    made.pop(title, None)


def batch(name, n, device):
    n_inputs, n_outputs, *_ = MODELS[name]
    generator = torch.Generator().manual_seed(n)
    x = torch.rand(n, n_inputs, generator=generator)
    y = torch.rand(n, n_outputs, generator=generator)
    return x.to(device), y.to(device)


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def total_seconds(call, device, n_calls):
    """Seconds of one call among many, waited for at both ends."""
    wait(device)
    start = time.perf_counter()
    for _ in range(n_calls):
        call()
    wait(device)
    return (time.perf_counter() - start) / n_calls


def host_seconds(call, device, n_calls):
    """Seconds for which one call keeps the host, when the device has nothing to do: the median."""
    seconds = []
    for _ in range(n_calls):
        wait(device)
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    wait(device)
    return float(np.median(seconds))


def measure(made, name, n, n_rounds, device, left_out):
    """Microseconds by way and task: medians of rounds in turns."""
    x, y = batch(name, n, device)
    tasks = {}
    for title, (way, methods) in list(made.items()):
        for method in methods:
            task = (title, method.removeprefix("captured_"))
            call = getattr(way, method)
            try:
                for _ in range(3):
                    call(x, y)
                once = total_seconds(lambda call=call: call(x, y), device, FEWEST)
            except (RuntimeError, ValueError, TypeError) as error:
                leave_out(made, title, f"{title}, {name}, {n}", error, left_out)
                break
            n_calls = int(np.clip(SECONDS / once, FEWEST, MOST))
            tasks[task] = (lambda call=call: call(x, y)), n_calls
    totals = {task: [] for task in tasks}
    for _ in range(n_rounds):
        for task, (call, n_calls) in tasks.items():
            totals[task].append(total_seconds(call, device, n_calls))
    rows = []
    for (title, method), (call, n_calls) in tasks.items():
        seconds = totals[title, method]
        host = host_seconds(call, device, n_calls) if device.type == "cuda" else None
        rows.append(
            {
                "model": name,
                "batch_size": n,
                "way": title,
                "task": method,
                "total_us": round(1e6 * float(np.median(seconds)), 2),
                "rounds_us": [round(1e6 * each, 2) for each in seconds],
                "host_us": None if host is None else round(1e6 * host, 2),
            }
        )
    return rows


def run(names, options, device, report, write):
    """Measure all models; `write` is called with the report whenever there is more in it."""
    host_alone, graphs = options.device == "none", not options.no_graphs
    dtype = torch.float16 if host_alone else None
    report["results"], report["left_out"] = [], {}
    print(f"{'model':20} {'batch':>7} {'task':6} {'way':24} {'total us':>9} {'host us':>9}")
    for name in names:
        begun = time.perf_counter()
        try:
            made = ways(name, device, dtype, report["left_out"], graphs)
            if not host_alone:
                check(made, name, device, report["left_out"])
        except (RuntimeError, ValueError, TypeError, ImportError) as error:
            leave_out({}, name, name, error, report["left_out"])
            continue
        prepared = round(time.perf_counter() - begun, 1)
        report.setdefault("first_calls_s", {})[name] = prepared
        print(f"{name}: modules and first calls took {prepared} s", flush=True)
        for n in options.batch_sizes:
            rows = measure(made, name, n, options.rounds, device, report["left_out"])
            report["results"] += rows
            for row in sorted(rows, key=lambda row: row["task"]):
                host = "" if row["host_us"] is None else f"{row['host_us']:9.1f}"
                which = f"{name:20} {n:7} {row['task']:6} {row['way']:24}"
                print(f"{which} {row['total_us']:9.1f} {host}", flush=True)
            write(report)
        del made


def as_text(report):
    return json.dumps(report, indent=1) + "\n"
