"""Compiling device functions only as far as their callers need.

Numba optimises every function and generates its machine code, although a device function is only
ever inlined into its caller, which is optimised as a whole afterwards. With functions nested as
deep as ours, most of the time went there: this compiler stops at LLVM's IR. Compiling the training
step of a hash grid takes 16 s of CPU time instead of 26 s (both under a profiler).
"""

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.registry import CPUDispatcher


class _NoEnvironment:
    """Takes the place of a code generator where a library says which environment it runs in."""

    @staticmethod
    def set_env(name, environment):
        """A function that is inlined has no environment of its own."""


class InlineLibrary(JITCodeLibrary):
    """The IR of one device function, to be linked into its callers; never runs by itself."""

    codegen = _NoEnvironment

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name):
        return 0


class InlineCompiler(Compiler):
    """Numba's compiler with an InlineLibrary to put its result in."""

    def define_pipelines(self):
        state = self.state
        state.flags.no_cpython_wrapper = True
        state.flags.no_cfunc_wrapper = True
        codegen = state.targetctx.codegen()
        state.library = InlineLibrary(codegen, state.func_id.func_qualname)
        return super().define_pipelines()


class InlineDispatcher(CPUDispatcher):
    """A device function; called from Python, it is compiled in full, for that purpose alone."""

    def __init__(self, py_func, **options):
        options["nopython"] = True
        super().__init__(py_func, targetoptions=options, pipeline_class=InlineCompiler)
        self._full = CPUDispatcher(py_func, targetoptions=options)

    def __call__(self, *arguments):
        return self._full(*arguments)
