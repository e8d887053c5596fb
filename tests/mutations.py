"""Mutations of the most important kernels, and for each a test that must fail.

    python tests/mutations.py [PART OF A NAME]

Each is made in a copy of the repository; the test has to pass there before, and to fail after. The
exit code says whether all were caught. `test_mutations.py` keeps the list up to date.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COPIED = "numbanet", "emulator", "tests", "conftest.py", "pyproject.toml"


class Mutation(NamedTuple):
    name: str
    file: str  # below numbanet
    before: str  # stands there once
    after: str
    test: str  # below tests


MUTATIONS = (
    Mutation(
        "CPU, network: the last row of a tile is not activated",
        "cpu/mlp.py",
        "activate_hidden(scratch, before, here, n_rows * hidden_pitch)",
        "activate_hidden(scratch, before, here, (n_rows - 1) * hidden_pitch)",
        "test_model.py::test_inference_matches_the_twin[hash-257]",
    ),
    Mutation(
        "CPU, grid: a gradient has the weight of another corner",
        "encodings/grid/rows.py",
        "multiply_add(dl_dparams, j, weights[k], dl_dy, 0, n_features)",
        "multiply_add(dl_dparams, j, weights[i], dl_dy, 0, n_features)",
        "test_model.py::test_gradients_match_the_twin[hash-257]",
    ),
    Mutation(
        "Adam: the second moment is debiased as in the first step",
        "optimizers/adam.py",
        "math.sqrt(-exp_minus_one(log_beta2 * k))",
        "math.sqrt(-exp_minus_one(log_beta2))",
        "optimizers/test_adam.py::test_debiasing_is_exact_for_a_long_memory",
    ),
    Mutation(
        "fused inference: outputs are not activated",
        "cuda/fused/inference.py",
        "store(outputs, place(e), act(sums[e]))",
        "store(outputs, place(e), sums[e])",
        "cuda/test_fused.py::test_inference_is_as_exact_as_halves_allow[pairs_3d]",
    ),
    Mutation(
        "fused training: activations are replaced while others read them",
        "cuda/fused/training.py",
        "wait(warp)  # now those of layer k may replace its activations",
        "pass",
        "cuda/test_fused.py::test_training_is_as_exact_as_halves_allow[hash]",
    ),
    Mutation(
        "wide training: the second fragment has the targets of the first",
        "cuda/wide/samples_kernel.py",
        "gradient(lane, i + ROWS * k, n, mine, wanted, to)",
        "gradient(lane, i, n, mine, wanted, to)",
        "cuda/test_wide.py::test_training_is_as_exact_as_halves_allow[thin]",
    ),
    Mutation(
        "wide gradients of weights: the last samples of a stage are left out",
        "cuda/wide/weights_kernel.py",
        "unrolled(n_fragments, add_fragment, row,",
        "unrolled(n_fragments - 1, add_fragment, row,",
        "cuda/test_wide.py::test_training_is_as_exact_as_halves_allow[thin]",
    ),
    Mutation(
        "products of tensor cores: one stage is read where the other lies",
        "cuda/chain/tensor_block.py",
        "offset = second_stage - offset",
        "offset = second_stage",
        "cuda/test_matrix_product.py::test_weight_gradients_are_added[20x3x1100-float16]",
    ),
    Mutation(
        "products of float32: numbers beyond the depth are read",
        "cuda/chain/fma_block.py",
        "if (side < end) & (depth < end_depth):",
        "if side < end:",
        "cuda/test_tensor_floats.py::test_multiply_adds[33x5x257]",
    ),
    Mutation(
        "products of float32 on tensor cores: the small part of the rows is left out",
        "cuda/chain/float_block.py",
        "chunk = multiply_add_tf32(small, low, high, NO_SUMS)",
        "chunk = NO_SUMS",
        "cuda/test_tensor_floats.py::test_as_exact_as_multiply_adds[cut off-normal-forward]",
    ),
    Mutation(
        "loss: gradients are not scaled",
        "cuda/chain/loss_kernels.py",
        "store(dl_dy, here, scale * gradient)",
        "store(dl_dy, here, gradient)",
        "cuda/test_components.py::test_loss_matches_its_twin[3-False-L2-{}-{}-float16]",
    ),
    Mutation(
        "end of a step: gradients that are not finite go unnoticed",
        "cuda/optimizer/kernels.py",
        "bad = has_beyond(least_bad, pgradients, n_gradients)",
        "bad = False",
        "cuda/test_training.py::test_what_was_accumulated_is_looked_at[200]",
    ),
    Mutation(
        "tables, levels in shared memory: the last slice of a batch is left out",
        "cuda/tables/resident.py",
        "total += select(s < n_slices, partial[here + of_slice], ZERO)",
        "total += select(s < n_slices - 1, partial[here + of_slice], ZERO)",
        "cuda/test_tables.py::test_any_batch_size[resident-1025]",
    ),
    Mutation(
        "tables, records: both ends of an edge have the weight of one",
        "cuda/tables/records.py",
        "select(is_first, np.float32(1) - t, t)",
        "select(is_first, t, t)",
        "cuda/test_tables.py::test_gradients_are_those_of_the_twin[binned-3-D, entries far apart]",
    ),
    Mutation(
        "tables, bins: the last record of a segment is added by all lanes",
        "cuda/tables/sums.py",
        "if r + LANES * j < end:",
        "if r < end:",
        "cuda/test_tables.py::test_any_batch_size[binned-31]",
    ),
)


def run(root: Path, test: str) -> int:
    """The exit code of pytest: 0 where all pass, 1 where one fails."""
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-q", "-x", f"tests/{test}"]
    environment = {**os.environ, "PYTHONPATH": str(root), "NUMBANET_CACHE_DIR": str(cache())}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.stdout.decode() + done.stderr.decode())
    return done.returncode


def cache() -> Path:
    """Kernels that are not mutated are those of the test suite."""
    return Path(os.environ.get("NUMBANET_CACHE_DIR", ROOT / ".pytest_cache" / "d" / "kernels"))


def copy_of(root: Path) -> None:
    for name in COPIED:
        source, ignored = ROOT / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=ignored)
        else:
            shutil.copy(source, root / name)


def is_caught(mutation: Mutation) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        copy_of(root)
        if run(root, mutation.test) != 0:
            sys.exit(f"{mutation.test} fails without a mutation")
        file = root / "numbanet" / mutation.file
        file.write_text(file.read_text().replace(mutation.before, mutation.after))
        return run(root, mutation.test) == 1


def main(part: str = "") -> None:
    missed = 0
    for mutation in MUTATIONS:
        if part in mutation.name:
            caught = is_caught(mutation)
            missed += not caught
            print(f"{'caught' if caught else 'MISSED':8}{mutation.name}", flush=True)
    sys.exit(missed)


if __name__ == "__main__":
    main(*sys.argv[1:])
