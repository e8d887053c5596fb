"""Write a digest of the PTX of each kernel of many models: what a change of form must leave alone.

    python -m benchmarks.scripts.kernel_hashes before.json
    (change the source)
    python -m benchmarks.scripts.kernel_hashes after.json --before before.json

The second run names the kernels that differ; `--only config_hash,streamed` takes some models.
Names of symbols do not count; instructions, their order and their registers do, and so do the
kernels that each pass launches. `--uncompiled` compares byte code, constants and what is captured
instead: seconds, not minutes, but renamed variables of closures count too. Needs no GPU.
"""

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np

import numbanet
from numbanet.app.compile_kernels import run_everything
from numbanet.cuda.driver.compile_only import CompiledKernel, CompileOnlyDevice
from numbanet.cuda.toolchain.compiler import readable_name
from numbanet.cuda.toolchain.machine_code import PTX
from numbanet.fingerprint import fingerprint

CONFIGS = Path(__file__).parents[2] / "samples" / "configs"
TURING, AMPERE, HOPPER = (7, 5), (8, 0), (9, 0)
N, MANY = 256, 2**18  # samples; gradients of tables are summed apart where there are many

ADAM = {"otype": "Adam"}
GRID = {
    "otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 12, "base_resolution": 4,
}  # fmt: skip
SMOOTH = {
    "otype": "Grid", "type": "Dense", "interpolation": "Smoothstep", "n_levels": 2,
    "n_features_per_level": 4, "base_resolution": 3,
}  # fmt: skip
COMPOSITE = {
    "otype": "Composite",
    "nested": [
        {"otype": "TriangleWave", "n_frequencies": 3, "n_dims_to_encode": 1},
        {"otype": "HashGrid", "n_levels": 2, "log2_hashmap_size": 8, "n_dims_to_encode": 2},
        {"otype": "SphericalHarmonics", "degree": 3, "n_dims_to_encode": 3},
    ],
}
FACTOR = {**GRID, "n_dims_to_encode": 2, "dims_to_encode_begin": 0}
PRODUCT = {"otype": "Composite", "reduction": "Product", "nested": [FACTOR, FACTOR]}
ENCODINGS = {  # name -> number of inputs, config
    "identity": (5, {"otype": "Identity"}),
    "frequency": (3, {"otype": "Frequency", "n_frequencies": 6}),
    "triangle_wave": (3, {"otype": "TriangleWave", "n_frequencies": 6}),
    "one_blob": (2, {"otype": "OneBlob", "n_bins": 8}),
    "spherical_harmonics": (3, {"otype": "SphericalHarmonics", "degree": 4}),
    "nrc": (8, {"otype": "OneBlobFrequency"}),
    "smooth": (3, SMOOTH),
    "composite": (6, COMPOSITE),
    "product": (2, PRODUCT),
    "empty": (2, {"otype": "Empty"}),
}
LOSSES = ("L1", "L2", "RelativeL2Luminance", "CrossEntropy", "Variance", "SMAPE")
OPTIMIZERS = {
    "sgd": {"otype": "SGD"},
    "novograd": {"otype": "Novograd"},
    "shampoo": {"otype": "Shampoo"},
    "ema": {"otype": "EMA", "nested": ADAM},
    "lookahead": {"otype": "Lookahead", "nested": ADAM},
    "batched": {"otype": "Batched", "nested": ADAM},
    "average": {"otype": "Average", "nested": ADAM},
    "decay": {"otype": "ExponentialDecay", "nested": ADAM},
}


def network(n_neurons: int, n_hidden_layers: int, activation: str = "ReLU") -> dict:
    return {
        "otype": "CutlassMLP", "n_neurons": n_neurons, "n_hidden_layers": n_hidden_layers,
        "activation": activation,
    }  # fmt: skip


def cases():
    """Cases: name, compute capability, keywords of create_from_config, and further passes."""

    def case(encoding, mlp, n_in=2, n_out=3, loss="RelativeL2", optimizer=ADAM, **options):
        config = {
            "encoding": encoding, "network": mlp, "loss": {"otype": loss}, "optimizer": optimizer,
        }  # fmt: skip
        return {"n_input_dims": n_in, "n_output_dims": n_out, "config": config, **options}

    for name in ("config_hash", "config_oneblob"):
        config = numbanet.load_config(CONFIGS / f"{name}.json")
        options = {"n_input_dims": 2, "n_output_dims": 3, "config": config}
        yield name, HOPPER, options, ()
    small = network(32, 2)
    tables = {**GRID, "n_levels": 2, "log2_hashmap_size": 16, "base_resolution": 30}
    yield "tables", HOPPER, case(tables, small, 3), ("many",)
    for precision in numbanet.targets.PRECISIONS:
        options = case(GRID, network(16, 1, "SiLU"), precision=precision)
        for capability in (TURING, HOPPER):
            yield f"grid_{precision}", capability, options, ("second", "in_kernels")
    yield "odd_chain", HOPPER, case(GRID, network(33, 1, "Sigmoid")), ("in_kernels",)
    yield "wide", AMPERE, case({"otype": "OneBlob", "n_bins": 32}, network(128, 2, "Sine")), ()
    streamed = network(128, 7, "LeakyReLU")
    yield "streamed", HOPPER, case(GRID, streamed, n_out=20, precision="bfloat16"), ()
    for name, (n_in, encoding) in ENCODINGS.items():
        if name != "empty":
            yield name, HOPPER, case(encoding, small, n_in), ()
        yield name + "_alone", HOPPER, {"encoding": encoding, "n_input_dims": n_in}, ()
    tiny = network(16, 1)
    for loss in LOSSES:
        yield loss, HOPPER, case({"otype": "Identity"}, tiny, loss=loss, fused=False), ()
    yield "Huber_fused", HOPPER, case({"otype": "Identity"}, tiny, loss="Huber"), ()
    for name, optimizer in OPTIMIZERS.items():
        options = case({"otype": "Identity"}, tiny, optimizer=optimizer, fused=False)
        yield name, HOPPER, options, ()


class UncompiledDevice(CompileOnlyDevice):
    """Device whose code of a kernel is the fingerprint that determines it."""

    def build(self, function, argument_types, block=None, max_registers=None):
        code = fingerprint(function, "cuda"), tuple(argument_types), block, max_registers
        name = readable_name(function)
        self._built[name, code] = CompiledKernel(name, PTX(repr(code), name), None, 0.0)
        return self._built[name, code]


def work(device, options: dict, more: tuple[str, ...]) -> None:
    """Run all passes of a model."""
    n = MANY if "many" in more else N
    if "encoding" in options:
        encoding, n_in = options["encoding"], options["n_input_dims"]
        model = numbanet.create_encoding(n_in, encoding, device=device)
    else:
        trained = numbanet.create_from_config(device=device, **options)
        run_everything(trained, n)
        model, n_in = trained.network, options["n_input_dims"]
    if "in_kernels" in more:
        in_kernels(model)
    x, y = np.zeros((n, n_in), np.float32), np.zeros((n, model.n_output_dims), np.float32)
    if "encoding" in options or "second" in more:
        _, context = model.forward(x)
        model.backward(context, y)
        model.double_backward(context, y, x)


def in_kernels(model) -> None:
    """Launch a kernel of a user's that evaluates the model."""
    functions = model.device_functions()
    load, infer = functions.load, functions.infer

    def evaluate(params, x, y):
        load(params)
        infer(params, x[0], y[0])

    target = model.target
    x, y = target.zeros(N, model.n_input_dims), target.zeros(N, model.n_output_dims)
    functions.kernel(evaluate)(1, model.kernel_params(None), x, y)


def digest(text: str) -> str:
    """A digest of the instructions, and the declarations, of a module."""
    text = re.sub(r"//.*", "", text)
    names = {}
    words = re.compile(r"(?<![\w$%.])[A-Za-z_$][\w$]*(?=[\s,;\]\[+(])|(?<=\s)\$\w+:")
    lines = []
    for line in text.splitlines():
        if line.strip().startswith((".version", ".file", ".loc")) or not line.strip():
            continue
        operation, _, operands = line.strip().partition(" ")
        if operation.startswith("."):  # declarations name symbols
            operands = words.sub(lambda m: names.setdefault(m[0], f"symbol{len(names)}"), operands)
        else:
            for name, number in names.items():
                operands = re.sub(rf"(?<![\w$]){re.escape(name)}(?![\w$])", number, operands)
        lines.append(f"{operation} {operands}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def hashes(only: list[str], kind: type) -> dict[str, list[list[str]]]:
    """Name and digest of each kernel of each case, in the order of the launches."""
    found, digests = {}, {}
    for name, capability, options, more in cases():
        if only and name not in only:
            continue
        device = kind(capability, assembles=False)
        work(device, options, more)
        rows = []
        for kernel in [*device.kernels, *device.launches]:
            text = kernel.ptx.text
            if text not in digests:
                digests[text] = digest(text)
            rows.append([kernel.name, digests[text]])
        found[f"{name} {device.name}"] = rows
        print(f"{name} {device.name}: {len(device.kernels)} kernels", flush=True)
    return found


def differences(before: dict, after: dict):
    """Lines that report the differences."""
    for case in sorted({*before, *after}):
        old, new = before.get(case, []), after.get(case, [])
        if [code for _, code in old] == [code for _, code in new]:
            continue
        codes = {code for _, code in old}
        changed = dict.fromkeys(name for name, code in new if code not in codes)
        what = ", ".join(changed) or f"{len(old)} kernels and launches became {len(new)}"
        yield f"{case}: {what}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", help="a JSON file to write")
    parser.add_argument("--before", help="one of an earlier run to compare with")
    parser.add_argument("--only", default="", help="names of models, by commas")
    parser.add_argument("--uncompiled", action="store_true", help="compare what is to be compiled")
    arguments = parser.parse_args()
    kind = UncompiledDevice if arguments.uncompiled else CompileOnlyDevice
    found = hashes(arguments.only.split(",") if arguments.only else [], kind)
    Path(arguments.output).write_text(json.dumps(found, indent=0))
    if arguments.before:
        before = json.loads(Path(arguments.before).read_text())
        lines = list(differences(before, found))
        print("\n".join(lines) or "equal")
        sys.exit(bool(lines))


if __name__ == "__main__":
    main()
