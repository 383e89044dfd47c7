"""The application that the commands belong to: how it fails, and the options that several commands share."""

import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import imputune
from imputune import signals
from imputune.errors import UserError
from imputune.runtime import threads

REFUSED_OUTPUT = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG, errno.EBADF)

threads.prepare_command()  # here, because the modules of the commands load NumPy


class Commands(TyperGroup):
    """Shows a UserError as one line; a stop, whatever error it led to, has its own line, which `main` prints."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return result
        except OSError as error:
            if error.errno not in REFUSED_OUTPUT or error.filename is not None:
                raise
            typer.echo(f"error: cannot print the output: {os.strerror(error.errno)}; print it elsewhere", err=True)
            raise typer.Exit(UserError.exit_code) from None
        except UserError as error:
            if signals.asked():
                raise typer.Exit(signals.INTERRUPTED) from None
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from None


app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Dataset = Annotated[str | None, typer.Argument(help="The cohort in data/<dataset> (default: dataset in params.yaml).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Pretrain a clinical time-series imputer, fine-tune small heads on it, compare every run."""
    if version:
        typer.echo(f"imputune {imputune.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
