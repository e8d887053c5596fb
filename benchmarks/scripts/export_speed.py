"""Speed of a model as C and ONNX, beside the CPU target on one thread, and its size in bytes.

    python -m benchmarks.scripts.export_speed --config samples/configs/config_hash.json

Needs gcc or clang; ONNX Runtime where it is installed. Ratios are medians of rounds in turns.
"""

import argparse
import ctypes
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

SOURCE = """
#include "model.h"
void run(const void *values, const void *scales, const float *x, float *y, int n) {
    model_params params = {values SCALES};
    (void)scales;
    for (int i = 0; i < n; i++)
        model_evaluate(&params, x + i * MODEL_N_INPUTS, y + i * MODEL_N_OUTPUTS);
}
"""


def compiled(folder: Path, precision: str):
    """The function `run` of an exported header."""
    source = SOURCE.replace("SCALES", ", scales" if precision == "int8" else "")
    (folder / "run.c").write_text(source)
    compiler = shutil.which("gcc") or shutil.which("clang")
    library = folder / f"{precision}.so"
    options = ["-std=c99", "-O3", "-march=native", "-shared", "-fPIC"]
    subprocess.run(
        [compiler, *options, str(folder / "run.c"), "-o", str(library), "-lm"], check=True
    )
    return ctypes.CDLL(str(library)).run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="samples/configs/config_hash.json")
    parser.add_argument("--samples", type=int, default=1 << 14)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    os.environ["NUMBA_NUM_THREADS"] = "1"
    import numpy as np

    import numbanet
    from numbanet.exports.packing import packed

    config = numbanet.load_config(arguments.config)
    model = numbanet.create_from_config(2, 3, config, device="cpu")
    x = np.random.default_rng(0).random((arguments.samples, 2), np.float32)
    found = np.empty((arguments.samples, 3), np.float32)
    ways = {"numbanet, CPU": lambda: model(x)}
    sizes = {}
    with tempfile.TemporaryDirectory() as name:
        folder, keep = Path(name), []
        for precision in ("float32", "float16", "int8"):
            header, params = numbanet.export(
                model, folder / "model.h", precision=precision, embed=False
            )
            sizes[f"C, {precision}"] = Path(header).stat().st_size + Path(params).stat().st_size
            run, numbers = compiled(folder, precision), packed(model.network.params, precision)
            addresses = [
                None if each is None else each.ctypes.data_as(ctypes.c_void_p)
                for each in (numbers.values, numbers.scales, x, found)
            ]
            keep.append(numbers)
            ways[f"C, {precision}"] = lambda r=run, a=addresses: r(*a, arguments.samples)
        if importlib.util.find_spec("onnxruntime"):
            import onnxruntime

            (path,) = numbanet.export(model, folder / "model.onnx")
            sizes["ONNX, float32"] = Path(path).stat().st_size
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            session = onnxruntime.InferenceSession(path, options)
            ways["ONNX, float32"] = lambda: session.run(None, {"x": x})
        for precision in ("float16", "int8"):
            (path,) = numbanet.export(model, folder / "page.html", precision=precision)
            sizes[f"HTML, {precision}"] = Path(path).stat().st_size
        times = measured(ways, arguments.rounds)
    for way in dict.fromkeys([*times, *sizes]):
        rate = (
            f"{arguments.samples / times[way] / 1e3:8.0f} thousand samples/s"
            if way in times
            else ""
        )
        size = f"{sizes[way]:>10,} bytes" if way in sizes else ""
        print(f"{way:16} {rate:34} {size}")


def measured(ways, rounds: int) -> dict[str, float]:
    """Seconds of each way, medians of rounds in turns."""
    times = {way: [] for way in ways}
    for call in ways.values():
        call()
    for _ in range(rounds):
        for way, call in ways.items():
            begin = time.perf_counter()
            call()
            times[way].append(time.perf_counter() - begin)
    return {way: median(each) for way, each in times.items()}


if __name__ == "__main__":
    main()
