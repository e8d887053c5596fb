"""The command `numbanet`. A failure that is not a defect is one line and a non-zero exit code."""

import argparse
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from numbanet.app import commands, learning_commands
from numbanet.app.chosen_config import chosen_config
from numbanet.app.environment import version
from numbanet.app.errors import AppError, UsageError
from numbanet.app.output import Output
from numbanet.app.run_learning import (
    run_learn_field,
    run_learn_image,
    run_learn_surface,
    run_learn_volume,
)
from numbanet.app.streams import lossy_streams
from numbanet.ctrl_c import INTERRUPTED


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """Parser of all commands."""
    top = Parser(
        prog="numbanet",
        description="Small neural networks, trained and queried fast, in pure Python.",
        epilog="numbanet COMMAND --help tells more about a command.",
    )
    number = version("numbanet") or "(not installed)"
    top.add_argument("--version", action="version", version=f"numbanet {number}")
    subparsers = top.add_subparsers(metavar="COMMAND")
    for name, (command, run_it) in COMMANDS.items():
        texts = {"help": command.help, "description": command.description}
        added = subparsers.add_parser(name, **texts, epilog=command.epilog)
        command.add_to(added)
        added.set_defaults(run=run_it)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    with lossy_streams() as output:
        exit_code = run(sys.argv[1:] if argv is None else argv)
        output.flush()
        if output.error is not None and not isinstance(output.error, BrokenPipeError):
            reason = output.error.strerror or output.error
            exit_code = complain(f"cannot write the output: {reason}", exit_code or 1)
        # else, whoever read the output, as in `numbanet doctor | head`, has enough
        return exit_code


def run(argv: list[str]) -> int:
    try:
        arguments = parser().parse_args(argv)
        if not hasattr(arguments, "run"):
            parser().print_help()
            return UsageError.exit_code
        output = Output(arguments.verbose, arguments.quiet, arguments.json)
        with output.logged():
            warnings.showwarning = show_warning
            return arguments.run(arguments, output)
    except SystemExit as ending:  # of --help and --version
        return int(ending.code or 0)
    except AppError as error:
        return complain(str(error), error.exit_code)
    except OSError as error:
        return complain(str(error), 1)
    except MemoryError as error:
        return complain(f"not enough memory: {error}", 1)
    except KeyboardInterrupt:
        return complain("interrupted", INTERRUPTED)


def complain(text: str, exit_code: int) -> int:
    line = " ".join(text.split())
    print(f"numbanet: error: {line}", file=sys.stderr)
    return exit_code


def show_warning(message, category, filename, line_number, file=None, line=None):
    print(f"numbanet: warning: {message}", file=sys.stderr)


def run_compile(arguments: argparse.Namespace, output: Output) -> int:
    from numbanet.interrupt import cleaning_up

    with cleaning_up():
        compile_on = compile_for_cpu if arguments.target == "cpu" else compile_for_cuda
        compile_on(arguments, output)
    return 0


def compile_for_cuda(arguments: argparse.Namespace, output: Output) -> None:
    from numbanet.app.compile_kernels import compile_kernels

    if not arguments.arch:
        raise UsageError("name the GPU's architecture, as in --arch sm_90, or --target cpu")
    if arguments.torch:
        raise UsageError("--torch goes with --target cpu")
    compile_kernels(
        chosen_config(arguments),
        arguments.arch,
        precision=arguments.precision,
        dims=tuple(arguments.dims),
        batch_size=arguments.batch_size,
        output=output,
    )


def compile_for_cpu(arguments: argparse.Namespace, output: Output) -> None:
    from numbanet.app.compile_for_cpu import compile_for_cpu

    if arguments.arch:
        raise UsageError("--arch is that of a GPU; leave it out with --target cpu")
    sizes = tuple(arguments.dims), arguments.batch_size
    compile_for_cpu(chosen_config(arguments), *sizes, arguments.torch, output)


def run_export(arguments: argparse.Namespace, output: Output) -> int:
    from numbanet.app.export_command import export_snapshot

    export_snapshot(arguments, output)
    return 0


def run_cache(arguments: argparse.Namespace, output: Output) -> int:
    from numbanet.app import kernel_files

    if arguments.action == "clear":
        output.say(kernel_files.remove_all())
    else:
        output.say("\n".join(kernel_files.show()))
    output.result(kernel_files.figures())
    return 0


def run_doctor(arguments: argparse.Namespace, output: Output) -> int:
    from numbanet.app.doctor import doctor

    found = {}
    for subject, finding in doctor():
        output.say(f"{subject:>14}  {finding}" if subject else f"\n{finding}")
        found |= {subject: finding} if subject else {}
    output.result(found)
    return 0


def run_config(arguments: argparse.Namespace, output: Output) -> int:
    from numbanet.app.config_command import complete
    from numbanet.app.config_schema import config_schema

    if arguments.action == "schema":
        if arguments.config or arguments.set:
            raise UsageError("the schema is that of all configs; leave CONFIG out")
        print_json(config_schema(), output)
        return 0
    if not arguments.config:
        raise UsageError(f"config {arguments.action}: name the CONFIG")
    from numbanet.app.overrides import overridden

    config, unread = complete(overridden(arguments.config, arguments.set), tuple(arguments.dims))
    if arguments.action == "show":
        print_json(config, output)
    else:
        output.say("it can be used" if not unread else "it can be used, without what nothing reads")
        output.result({"usable": True, "unread": unread})
    if not output.quiet:
        for line in unread:
            show_warning(line, UserWarning, "", 0)
    return 1 if unread and arguments.action == "check" else 0


def print_json(value: Mapping[str, Any], output: Output) -> None:
    """Print a value as JSON, whatever the options: indented, or on a line for programs."""
    import json

    print(json.dumps(value, indent=None if output.as_json else 2))


def run_completion(arguments: argparse.Namespace, output: Output) -> int:
    from numbanet.app.completion import completion

    print(completion(parser(), arguments.shell))
    return 0


COMMANDS = {
    "learn-image": (learning_commands.LEARN_IMAGE, run_learn_image),
    "learn-field": (learning_commands.LEARN_FIELD, run_learn_field),
    "learn-surface": (learning_commands.LEARN_SURFACE, run_learn_surface),
    "learn-volume": (learning_commands.LEARN_VOLUME, run_learn_volume),
    "compile": (commands.COMPILE, run_compile),
    "export": (commands.EXPORT, run_export),
    "config": (commands.CONFIG, run_config),
    "cache": (commands.CACHE, run_cache),
    "doctor": (commands.DOCTOR, run_doctor),
    "completion": (commands.COMPLETION, run_completion),
}
