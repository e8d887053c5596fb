"""House rules that a few lines can check: who imports whom, and what device code looks like."""

import ast
import dataclasses
from functools import cache
from pathlib import Path

import pytest

from numbanet import registry

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "numbanet"
FILES = sorted(PACKAGE.rglob("*.py"))

# Who may import whom, beside itself. The emulator proper knows nothing of numbanet.
HOUSES = {
    "numbanet": (),
    "emulator/ptx": (),
    "emulator": ("emulator/ptx", "numbanet"),
    "benchmarks": ("emulator", "emulator/ptx", "numbanet"),
    "fuzz": ("numbanet",),
    "samples": ("numbanet",),
    "tests": ("fuzz", "emulator", "emulator/ptx", "numbanet"),
}
SEARCHED = [ROOT / "tests", *(ROOT / "tests").glob("*/")]

# From the bottom up. A module imports from lower rows and from its own package.
LAYERS = (
    ("architecture", "array_types"),
    ("caller", "forwarding", "shown"),
    ("renamed", "unknown_options"),
    ("arrays", "ctrl_c", "fingerprint", "lean_numba", "paused_collection", "ptx", "registry"),
    ("regular_file", "unsigned"),
    ("inline_compiler",),
    ("atomic_file", "device", "shared_functions"),
    ("code_store",),
    ("kernel_cache",),
    ("activations", "quantization", "random", "storage"),
    ("encodings", "losses", "networks", "optimizers"),
    ("jets",),
    ("encoded_network",),
    ("composition",),
    ("leveled_composition",),
    ("engine", "step_result", "tiles"),
    ("communicator",),
    ("distributed", "division", "many_training", "parameters"),
    ("target",),
    ("cpu", "cuda"),
    ("part_engine",),
    ("composed_engine",),
    ("coarse_to_fine",),
    ("commented_json",),
    ("config", "snapshot"),
    ("derivatives", "summary", "targets"),
    ("model_arguments", "parameter_owner", "volumes"),
    ("grid_levels", "part_components"),
    ("composition_config",),
    ("model_passes",),
    ("model",),
    ("composed_model", "encoding_model", "network_with_input_encoding"),
    ("create_model", "resized_grid"),
    ("grid_range", "matrices", "perturbation", "replicas", "saved_training"),
    ("loss_value", "many_losses", "training_file"),
    ("learning_rates", "optimizer_step", "trainer_names", "trainer_settings", "trainer_state"),
    ("trainer",),
    ("trainable_model",),
    ("history", "interrupt", "progress", "schedules"),
    ("run",),
    ("callbacks",),
    ("fit",),
    ("create", "exports", "tcnn_snapshot"),
    ("many",),
    ("params_file",),
    ("torch",),
    ("app",),
    ("__main__",),
)
# The same within numbanet/cuda.
ROOMS = (
    *("errors", "toolchain", "driver", "launch", "memory", "inference", "block"),
    *("tables", "chain", "fused", "wide", "ranks", "optimizer", "in_kernels", "serving", "engine"),
    *("many", "target"),
)
# What may still be larger than MOST_LINES, MOST_LINES_OF_FUNCTION and MOST_ARGUMENTS allow. Take
# away what became smaller; add nothing.
LARGE_FILES = set()
LONG_FUNCTIONS = set()
MANY_ARGUMENTS = {
    # What users call: each argument is an option of theirs, and most are given by name.
    "app/learn_field.py learn_field",
    "app/learn_image.py learn_image",
    "app/learn_surface.py learn_surface",
    "app/learn_volume.py learn_volume",
    "create.py create_from_config",
    "trainer.py training_step",
    "create_model.py create_network_with_input_encoding",
    # PyTorch takes an operator's schema from the parameters, which are tensors and scalars.
    "torch/operators.py _",
    "torch/operators.py loss",
    "torch/passes.py loss_and_gradients",
}
KERNELS = {  # their arguments are what a launch packs
    "cpu/optimizer_kernel.py optimize",
    "cpu/kernels.py training",
    "cpu/many_kernels.py many_optimize",
    "cpu/many_kernels.py many_training",
    "cuda/chain/biases.py biased_product",
    "cuda/chain/encoding_kernels.py encoding_backward_input",
    "cuda/chain/encoding_kernels.py encoding_backward_params",
    "cuda/chain/encoding_kernels.py encoding_double_backward_input",
    "cuda/chain/encoding_kernels.py encoding_double_backward_params",
    "cuda/chain/fma.py weight_gradients",
    "cuda/chain/integer_sums.py add_integers",
    "cuda/chain/integer_sums.py measure",
    "cuda/chain/tensor.py weight_gradients",
    "cuda/fused/training.py fused_training",
    "cuda/optimizer/kernels.py finish_step",
    "cuda/optimizer/kernels.py optimize_part",
    "cuda/optimizer/rank_kernels.py finish_of_ranks",
    "cuda/optimizer/rank_kernels.py vote",
    "cuda/optimizer/table_kernels.py collect_step",
    "cuda/tables/digits.py add_digits",
    "cuda/tables/records.py write_records",
    "cuda/tables/resident.py resident_sums",
    "cuda/tables/sums.py sum_records",
    "cuda/wide/samples_kernel.py wide_training",
}
MOST_LINES, MOST_LINES_OF_FUNCTION, MOST_ARGUMENTS = 300, 50, 8
COMPONENTS = ("activations", "encodings", "losses", "networks", "optimizers")
GRAB_BAGS = {"common", "core", "helpers", "misc", "util", "utils"}
# Openings of docstrings that leave open what a thing is; a noun or a verb comes first.
VAGUE = {
    *("And", "As", "By", "How", "Of", "That", "There", "These", "Those"),
    *("What", "Where", "Which", "Who", "Why"),
}


def name_of(file):
    """The package or module right below numbanet that a file belongs to."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def layer_of(name):
    return next((k for k, layer in enumerate(LAYERS) if name in layer), None)


def identity(file):
    return str(file.relative_to(PACKAGE))


@pytest.fixture(scope="module", autouse=True)
def trees_are_dropped():
    """Those of all files together are large."""
    yield
    for each in (tree_of, nodes_of, imported):
        each.cache_clear()


@cache
def tree_of(file):
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def nodes_of(file):
    """All nodes of a file's tree."""
    return tuple(ast.walk(tree_of(file)))


@cache
def imported(file):
    """Full names of what a module imports: the modules, and the names taken from them."""
    return tuple(names_of_imports(file))


def names_of_imports(file):
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def declared(file, *declarations):
    """Functions that stand below one of these decorators."""
    for node in nodes_of(file):
        if isinstance(node, ast.FunctionDef):
            names = {ast.unparse(decorator) for decorator in node.decorator_list}
            if names.intersection(declarations):
                yield node


@pytest.mark.parametrize("file", FILES, ids=identity)
def test_imports_point_down(file):
    here = name_of(file)
    if here == "__init__":
        return
    layer = layer_of(here)
    assert layer is not None, f"give {here!r} a place in LAYERS of {__file__}"
    for name in imported(file):
        parts = name.split(".")
        if parts[0] != "numbanet":
            continue
        there = parts[1] if len(parts) > 1 else "__init__"
        if here != there and layer_of(there) is not None:
            assert layer_of(there) < layer, f"{here} imports {name}, which does not lie below it"


def house_of(path):
    """The one of HOUSES that a file or directory is in; the longest name wins."""
    found = [house for house in HOUSES if (ROOT / house) in (path, *path.parents)]
    return max(found, key=len, default=None)


@cache
def imported_file(name):
    """Where a module or package of this repository is; tests import what lies beside them."""
    for top in (ROOT, *SEARCHED):
        path = top.joinpath(*name.split("."))
        while path != top:
            if (path / "__init__.py").exists() or path.with_suffix(".py").exists():
                return path
            path = path.parent
    return None


@pytest.mark.parametrize("house", HOUSES)
def test_houses_import_one_way(house):
    """The benchmarks do not know the tests, nor these them, and nothing knows a sample."""
    for file in sorted((ROOT / house).rglob("*.py")):
        if house_of(file) != house:
            continue
        for name in imported(file):
            path = imported_file(name)
            there = house_of(path) if path else None
            assert there in (None, house, *HOUSES[house]), f"{file} imports {name}"


@pytest.mark.parametrize("file", sorted((PACKAGE / "cuda").glob("**/*.py")), ids=identity)
def test_rooms_of_the_cuda_target_import_in_one_direction(file):
    here = file.relative_to(PACKAGE / "cuda").with_suffix("").parts[0]
    for name in imported(file):
        if here != "__init__" and name.startswith("numbanet.cuda."):
            there = name.split(".")[2]
            assert here == there or ROOMS.index(there) < ROOMS.index(here), f"{here}: {name}"


@pytest.mark.parametrize("file", FILES, ids=identity)
def test_nothing_is_asserted(file):
    """Assertions vanish under python -O, and what they compute or check with them."""
    assert not any(isinstance(node, ast.Assert) for node in nodes_of(file))


@pytest.mark.parametrize("file", FILES, ids=identity)
def test_modules_say_what_they_are(file):
    assert file.stem not in GRAB_BAGS
    tree = tree_of(file)
    if file.name != "__init__.py" or tree.body:
        assert ast.get_docstring(tree)


@pytest.mark.parametrize("folder", ["numbanet", "emulator", "benchmarks"])
def test_docstrings_begin_with_a_noun_or_a_verb(folder):
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in nodes_of(file):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node) or ""
                assert text.partition(" ")[0] not in VAGUE, f"{file}: {text[:80]}"


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.name == "__init__.py" and file.parent != PACKAGE]
)
def test_package_files_only_import(file):
    for node in tree_of(file).body:
        assert isinstance(node, (ast.Import, ast.ImportFrom, ast.Expr))


@pytest.mark.parametrize("file", FILES, ids=identity)
def test_device_code_has_no_float64(file):
    """A literal such as 0.5 would turn the arithmetic around it into float64."""
    for function in declared(file, "device", "Job"):
        casts = [
            node
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("np.float32", "np.float64", "range")
        ]
        wrapped = {id(node) for cast in casts for node in ast.walk(cast)}
        for node in ast.walk(function):
            where = f"{function.name}, line {getattr(node, 'lineno', '?')}"
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                assert id(node) in wrapped, f"{where}: wrap {node.value} in np.float32"
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("math.pi", "math.e", "np.pi", "np.e"), where


@pytest.mark.parametrize("file", FILES, ids=identity)
def test_device_functions_have_no_annotations_and_docstrings(file):
    for function in declared(file, "device"):
        if function.col_offset > 0:  # those at the top of a module explain themselves
            assert ast.get_docstring(function) is None, function.name
        assert function.returns is None, function.name
        assert all(argument.annotation is None for argument in function.args.args), function.name


@pytest.mark.parametrize("file", FILES, ids=identity)
def test_nothing_executes_what_it_reads(file):
    """Only the kernel cache unpickles, and only what it wrote itself: machine code."""
    names = set(imported(file))
    if file.name != "kernel_cache.py":
        assert not names & {"pickle", "cloudpickle", "marshal", "dill", "joblib"}
    for node in nodes_of(file):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("exec", "eval", "compile", "__import__")
            assert all(keyword.arg != "allow_pickle" for keyword in node.keywords)


@pytest.mark.parametrize("file", FILES, ids=identity)
def test_composed_closures_do_not_use_numbas_cache(file):
    """It never hits for them: see kernel_cache.py."""
    for node in nodes_of(file):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("jit"):
            assert all(keyword.arg != "cache" for keyword in node.keywords)


@pytest.mark.parametrize(
    "file", [file for file in FILES if name_of(file) in COMPONENTS], ids=identity
)
def test_components_know_no_target(file):
    for name in imported(file):
        assert "cuda" not in name.lower()
        assert not name.startswith("numbanet.cpu")


@pytest.mark.parametrize("kind", registry.KINDS)
def test_components_are_frozen_dataclasses_with_defaults(kind):
    for name, registered in registry.registered(kind).items():
        component = getattr(registered, "component", registered)
        assert dataclasses.is_dataclass(component), name
        assert component.__dataclass_params__.frozen, name
        for field in registry.options(component).values():
            has_default = field.default is not dataclasses.MISSING
            assert has_default or field.default_factory is not dataclasses.MISSING, field.name


def functions_within(node):
    """The outermost functions in a function or module."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child
        else:
            yield from functions_within(child)


def n_lines(function):
    """Of its own, without those of the docstring and of the functions in it."""
    n = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function):
        n -= first.end_lineno - first.lineno + 1
    within = functions_within(function)
    return n - sum(each.end_lineno - each.lineno + 1 for each in within)


def n_arguments(function):
    names = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return sum(name.arg not in ("self", "cls") for name in names)


@pytest.mark.parametrize("file", FILES, ids=identity)
def test_sizes(file):
    """Of files, of functions, and of lists of arguments."""
    name = identity(file)
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES or name in LARGE_FILES, f"{name} has {lines} lines"
    jobs = list(declared(file, "Job"))  # kernels too
    for node in nodes_of(file):
        if isinstance(node, ast.FunctionDef):
            function = f"{name} {node.name}"
            assert n_lines(node) <= MOST_LINES_OF_FUNCTION or function in LONG_FUNCTIONS, function
            few = n_arguments(node) <= MOST_ARGUMENTS or node in jobs
            assert few or function in MANY_ARGUMENTS | KERNELS, function


def test_exceptions_exist():
    """What is allowed to be large is there, and is named once."""
    names = set(map(identity, FILES))
    assert names >= LARGE_FILES
    functions = {
        f"{identity(file)} {node.name}"
        for file in FILES
        for node in nodes_of(file)
        if isinstance(node, ast.FunctionDef)
    }
    assert functions >= LONG_FUNCTIONS | MANY_ARGUMENTS | KERNELS
    assert not MANY_ARGUMENTS & KERNELS
