"""Assembler from PTX to machine code: nvJitLink or the program ptxas; no GPU is needed."""

import hashlib
import re
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

from numbanet import code_store
from numbanet.cuda.errors import CompilationError, ToolkitMissingError
from numbanet.cuda.toolchain import toolkit
from numbanet.cuda.toolchain.machine_code import PTX, Cubin, Resources


def assemble(ptx: PTX, compute_capability: tuple[int, int]) -> Cubin:
    """Assemble a kernel, unless it is found on disk.

    Raises:
        ToolkitMissingError: there is neither nvJitLink nor ptxas.
        CompilationError: the PTX is not valid for this compute capability.
    """
    text = hashlib.sha256(ptx.text.encode()).hexdigest()
    key = ("cubin", text, tuple(compute_capability), toolkit.assembler_version())
    path = code_store.path_of(ptx.name, "cubin", key)
    found = code_store.read(path)
    if found is not None:
        return Cubin(found[1], ptx.name, Resources(**found[0]))
    architecture = "sm_{}{}".format(*compute_capability)
    if f".target {architecture}a" in ptx.text:
        architecture += "a"
    image, report = link(ptx, architecture)
    resources = read_report(report)
    code_store.write(path, asdict(resources), image)
    return Cubin(image, ptx.name, resources)


def link(ptx: PTX, architecture: str) -> tuple[bytes, str]:
    """Machine code, and the assembler's report."""
    try:
        toolkit.library("nvJitLink")
    except ToolkitMissingError:
        return link_by_program(ptx, architecture)
    return link_by_library(ptx, architecture)


def link_by_library(ptx: PTX, architecture: str) -> tuple[bytes, str]:
    from cuda.bindings import nvjitlink

    options = [f"-arch={architecture}", "-verbose"]
    try:
        handle = nvjitlink.create(len(options), options)
    except nvjitlink.nvJitLinkError as error:
        raise CompilationError(f"nvJitLink knows no {architecture}: {error}") from error
    try:
        text = ptx.text.encode()
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, text, len(text), ptx.name)
        nvjitlink.complete(handle)
        image = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, image)
        report = bytearray(nvjitlink.get_info_log_size(handle))
        if report:
            nvjitlink.get_info_log(handle, report)
    except nvjitlink.nvJitLinkError as error:
        log = bytearray(nvjitlink.get_error_log_size(handle))
        if log:
            nvjitlink.get_error_log(handle, log)
        raise rejected(ptx, architecture, log.decode() or str(error)) from error
    finally:
        nvjitlink.destroy(handle)
    return bytes(image), report.decode()


def link_by_program(ptx: PTX, architecture: str) -> tuple[bytes, str]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx.text)
        command = [toolkit.ptxas(), f"-arch={architecture}", "-v", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise rejected(ptx, architecture, done.stderr or done.stdout)
        return target.read_bytes(), done.stderr + done.stdout


def rejected(ptx: PTX, architecture: str, log: str) -> CompilationError:
    lines = [line.strip(" \0") for line in log.splitlines()]
    reason = next((line for line in lines if "error" in line or "fatal" in line), log.strip())
    return CompilationError(f"kernel {ptx.name} does not assemble for {architecture}: {reason}")


def read_report(report: str) -> Resources:
    """Figures in the output of `-v`; a figure that is missing is 0."""

    def figure(pattern):
        found = re.search(pattern, report)
        return int(found[1]) if found else 0

    return Resources(
        registers=figure(r"Used (\d+) registers"),
        shared_bytes=figure(r"(\d+) bytes smem"),
        spill_stores=figure(r"(\d+) bytes spill stores"),
        spill_loads=figure(r"(\d+) bytes spill loads"),
        local_bytes=figure(r"(\d+) bytes stack frame"),
    )
