"""The command rivals."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from imputune.cli.app import OutcomeOption, app
from imputune.cli.options import TrainingOptions, takes
from imputune.cli.word_lists import fold_numbers, split_words
from imputune.errors import UserError
from imputune.protocol.rival_choice import INPUTS, RIVALS, choose_rivals, listed_rivals
from imputune.protocol.rivals import Rival
from imputune.runtime.console import print_table, say
from imputune.settings.file import find_root, read_params
from imputune.settings.schema import Params

if TYPE_CHECKING:
    from imputune.pipeline.rival_work import RivalSummary


@dataclass(frozen=True, kw_only=True)
class RivalOptions(TrainingOptions):
    """The options of rivals."""

    dataset: Annotated[str, typer.Argument(help="The cohort in data/<dataset> (default: dataset in params.yaml).")] = ""
    outcome: OutcomeOption = ""
    rival: Annotated[
        str,
        typer.Option(
            help=f"One or more, separated by commas: {', '.join(RIVALS)}; or all. Default: those in params.yaml."
        ),
    ] = ""
    input: Annotated[
        str, typer.Option(help=f"One or more, separated by commas: {', '.join(INPUTS)}. Default: {INPUTS[0]}.")
    ] = ""
    fold: Annotated[str, typer.Option(help="Numbers of folds, separated by commas; all if left out.")] = ""
    again: Annotated[bool, typer.Option("--again", help="Train finished rivals again.")] = False
    show: Annotated[bool, typer.Option("--list", help="List the rivals and train nothing.")] = False

    def rivals(self, params: Params) -> list[Rival]:
        """Return the rivals that are meant; UserError for an unknown word, and --input without --rival."""
        names, inputs = split_words(self.rival), split_words(self.input)
        if names:
            return choose_rivals(names, inputs)
        if inputs:
            raise UserError("--input goes with --rival: name rivals, such as --rival seft, or leave --input out")
        return listed_rivals(params.rivals)

    @property
    def repeated(self) -> dict[str, str]:
        """The options that choose the same rivals and folds again."""
        return {name: getattr(self, name) for name in ("rival", "input", "fold", "outcome")}


@app.command("rivals")
@takes(RivalOptions)
def rivals_command(options: RivalOptions) -> None:
    """Train complex models end to end on the same folds, to compare small heads with them.

    Finished rivals are skipped. If the command is killed, run it again: it continues. The scores go to
    results/<dataset>/rivals.json as the folds come; `imputune compare` shows them.
    """
    root = find_root(Path.cwd())
    params = read_params(root / "params.yaml")
    rivals = options.rivals(params)
    if options.show:
        if options.fold:
            raise UserError("--list shows rivals, not their folds: leave out --fold, or --list")
        typer.echo("\n".join(rival.label for rival in rivals))
        return
    folds = fold_numbers(options.fold)
    with options.chosen_engine(params) as engine:
        from imputune.pipeline.project import Project
        from imputune.pipeline.rivals import RivalRequest, run_rivals

        project = Project.open(root, options.dataset, options.outcome).on(engine)
        request = RivalRequest(rivals=rivals, folds=folds, again=options.again, options=options.repeated)
        results = run_rivals(project, request, say)
    header = ("rival", "folds", "validation AUC", "test AUC", "seconds")
    where = ", ".join((project.dataset, *project.outcome_words))
    print_table(f"Rivals on {where}", header, [_line(result) for result in results])


def _line(result: "RivalSummary") -> tuple[str, ...]:
    """Return a rival's label, its finished folds, mean validation and test AUC of the scored ones, their seconds."""
    folds = [*result.folds.values()]
    scored = [fold.scores for fold in folds if not fold.failure]
    aucs = [f"{fmean(scores[name] for scores in scored):.3f}" if scored else "failed" for name in _AUCS]
    return result.rival.label, str(len(folds)), *aucs, f"{sum(fold.seconds for fold in folds):,.0f}"


_AUCS = ("validation_auc", "test_auc")
