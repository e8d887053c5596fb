"""The `numbanet export` command."""

import argparse
from pathlib import Path

import numbanet
from numbanet.app.errors import AppError, UsageError
from numbanet.app.output import Output


def export_snapshot(arguments: argparse.Namespace, output: Output) -> None:
    """Write the files of an export, and print their paths."""
    try:
        model = numbanet.load(arguments.model, device="cpu")
        files = numbanet.export(
            model,
            arguments.output,
            arguments.to,
            precision=arguments.precision,
            name=arguments.name,
            embed=not arguments.separate,
            view=arguments.view,
        )
    except ModuleNotFoundError as error:
        raise UsageError(f'missing: {error.name}; pip install "numbanet[export]"') from error
    except ValueError as error:
        raise AppError(str(error)) from error
    sizes = {file: Path(file).stat().st_size for file in files}
    output.say("\n".join(f"wrote {file}, {size:,} bytes" for file, size in sizes.items()))
    output.result({"files": sizes})
