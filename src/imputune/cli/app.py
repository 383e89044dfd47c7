"""The application that the commands belong to: how it fails, and the options that several commands share."""

import sys
from collections.abc import MutableMapping, Sequence
from functools import cached_property
from typing import Annotated, Any

import typer
from typer import CallbackParam
from typer.core import TyperGroup

import imputune
from imputune import signals
from imputune.errors import UserError
from imputune.models.compiled.library import name_of_code
from imputune.runtime import threads
from imputune.runtime.console import Verbosity, set_verbosity, verbosity

VERBOSITIES = ("quiet", "verbose")
VERSION_HELP = "Show the version, and which compiled code is used."
QUIET_HELP = "Show results, warnings and errors alone, no progress and no notes."
VERBOSE_HELP = "Show every epoch, and debug lines."
Commands = MutableMapping[str, Any]  # Typer gives the class of its commands no public name
threads.prepare_command()  # here, because the modules of the commands load NumPy


class Root(TyperGroup):
    """Shows a UserError as one line; a stop, whatever error it led to, has its own line, which `main` prints.

    Every command takes --quiet and --verbose too, so that they may stand before or behind its name.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        _share([each for each in self.params if each.name in VERBOSITIES], self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options that stand before a command."""
        set_verbosity(Verbosity.NORMAL)  # a process may run several commands, one after the other
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return result
        except PermissionError as error:
            if error.filename is None:
                raise
            typer.echo(f"error: {error.filename}: {error.strerror}; ask for permission, or name another", err=True)
            raise typer.Exit(UserError.exit_code) from None
        except OSError:
            if not (cause := _output_fails()):
                raise
            typer.echo(f"error: cannot write to standard output: {cause}; send it to another place", err=True)
            raise typer.Exit(UserError.exit_code) from None
        except UserError as error:
            if signals.asked():
                raise typer.Exit(signals.INTERRUPTED) from None
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from None


class LateGroup(TyperGroup):
    """A group whose commands are loaded when they are first asked for, because loading them takes long."""

    shared: Sequence[Any] = ()

    def load(self) -> Commands:
        """Return the commands by their names."""
        raise NotImplementedError

    @cached_property
    def loaded(self) -> Commands:
        """The commands by their names, which take the shared options too."""
        commands = self.load()
        _share(self.shared, commands)
        return commands

    @property
    def commands(self) -> Commands:
        """The commands by their names."""
        return self.loaded

    @commands.setter
    def commands(self, given: Commands) -> None:
        if given:
            raise ValueError(f"a group that loads its commands late was given {', '.join(given)}")


def _share(options: Sequence[Any], commands: Commands) -> None:
    """Let every command, those in groups too, take these options."""
    for command in commands.values():
        if isinstance(command, LateGroup):
            command.shared = options
        elif isinstance(command, TyperGroup):
            _share(options, command.commands)
        else:
            command.params.extend(options)


def _choose_verbosity(parameter: CallbackParam, chosen: bool) -> None:
    """Do what --quiet or --verbose says; a usage error if both are given."""
    if not chosen:
        return
    wanted = Verbosity(parameter.name)
    if verbosity() not in (Verbosity.NORMAL, wanted):
        raise typer.BadParameter("choose --quiet or --verbose")
    set_verbosity(wanted)


def _output_fails() -> str:
    """Return why standard output cannot be written, "" if it can, or if it is a terminal."""
    if sys.stdout is None or sys.stdout.isatty():
        return ""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except BrokenPipeError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


app = typer.Typer(
    cls=Root,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Dataset = Annotated[str | None, typer.Argument(help="The cohort in data/<dataset> (default: dataset in params.yaml).")]
OutcomeOption = Annotated[
    str,
    typer.Option("--outcome", help="What heads predict: los_over_7_days, ... (default: outcome in params.yaml)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def options(
    context: typer.Context,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", help=QUIET_HELP, callback=_choose_verbosity, expose_value=False),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help=VERBOSE_HELP, callback=_choose_verbosity, expose_value=False),
    ] = False,
    version: Annotated[bool, typer.Option("--version", help=VERSION_HELP)] = False,
) -> None:
    """Pretrain a clinical time-series imputer, fine-tune small heads on it, compare every run."""
    if version:
        typer.echo(f"imputune {imputune.__version__}, compiled code: {name_of_code()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
