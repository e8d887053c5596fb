"""Typed form of a device function, from Numba's front end."""

from functools import cache

from numba.core import base, compiler, compiler_lock, errors, event, postproc, types
from numba.core.analysis import compute_cfg_from_blocks
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, PassManager, register_pass
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
from numba.core.typed_passes import NopythonTypeInference
from numba.core.typing import context

from numbanet.exports.errors import ExportError
from numbanet.inline_compiler import complaint
from numbanet.lean_numba import lean
from numbanet.paused_collection import paused_collection


class TypedFunction:
    """Blocks of Numba's IR in static single assignment, with the types of variables and calls."""

    def __init__(self, function, func_ir, typemap, calltypes):
        self.function = function
        self.blocks = func_ir.blocks
        self.arg_names = tuple(func_ir.arg_names)
        self.typemap, self.calltypes = typemap, calltypes
        graph = compute_cfg_from_blocks(self.blocks)
        self.loops = {loop.header: loop for loop in graph.loops().values()}
        self.left_early = {
            header
            for header, loop in self.loops.items()
            if any(leaves(graph, label, loop) for label in loop.body if label != header)
        }
        self.join_of = joins(graph, self.blocks)


def leaves(graph, label, loop) -> bool:
    """Whether a block exits a loop."""
    return any(after not in loop.body for after, _ in graph.successors(label))


def joins(graph, blocks) -> dict[int, int | None]:
    """Immediate postdominator of each block, None if the function ends first."""
    after = graph.post_dominators()
    found = {}
    for label in blocks:
        ahead = {each for each in after.get(label, ()) if each != label and each in blocks}
        # The nearest one comes before all the others.
        found[label] = next(
            (each for each in ahead if ahead - {each} <= set(after.get(each, ()))), None
        )
    return found


@register_pass(mutates_CFG=False, analysis_only=True)
class KeepTypes(FunctionPass):
    """Compiler pass that ends the compilation after type inference, and keeps its results."""

    _name = "numbanet_keep_types"

    def __init__(self):
        super().__init__()

    def run_pass(self, state):
        state.cr = state.func_ir, state.typemap, state.calltypes
        return False


class FrontEnd(CompilerBase):
    """Numba's compiler up to type inference."""

    def define_pipelines(self):
        passes = PassManager("numbanet_front_end")
        passes.passes.extend(DefaultPassBuilder.define_untyped_pipeline(self.state).passes)
        passes.add_pass(NopythonTypeInference, "type inference")
        passes.add_pass(KeepTypes, "keep types")
        passes.finalize()
        return [passes]


@cache
def typed(function, arguments: tuple[types.Type, ...]) -> TypedFunction:
    """Typed form of a Python function for arguments of these types.

    Raises:
        ExportError: it does not compile.
    """
    flags = compiler.Flags()
    flags.error_model = "numpy"
    try:
        with (
            compiler_lock.global_compiler_lock,
            paused_collection(),
            lean(base, context, compiler.Flags, errors, event, postproc),
        ):
            result = compiler.compile_extra(
                cpu_target.typing_context,
                cpu_target.target_context,
                function,
                arguments,
                None,
                flags,
                {},
                pipeline_class=FrontEnd,
            )
    except NumbaError as error:
        raise ExportError(function, complaint(error)) from error
    return TypedFunction(function, *result)
