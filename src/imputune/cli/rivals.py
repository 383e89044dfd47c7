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
from imputune.protocol.rivals import INPUTS, RIVALS, choose_rivals
from imputune.runtime.console import print_table, say
from imputune.settings.file import find_root, read_params

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
            help=f"One or more, separated by commas: {', '.join(RIVALS)}; or all. Default: the networks that need no "
            "PyPOTS."
        ),
    ] = ""
    input: Annotated[
        str, typer.Option(help=f"One or more, separated by commas: {', '.join(INPUTS)}. Default: {INPUTS[0]}.")
    ] = ""
    fold: Annotated[str, typer.Option(help="Numbers of folds, separated by commas; all if left out.")] = ""
    again: Annotated[bool, typer.Option("--again", help="Train finished rivals again.")] = False
    show: Annotated[bool, typer.Option("--list", help="List the rivals and train nothing.")] = False

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
    rivals = choose_rivals(split_words(options.rival), split_words(options.input))
    if options.show:
        if options.fold:
            raise UserError("--list shows rivals, not their folds: leave out --fold, or --list")
        typer.echo("\n".join(rival.label for rival in rivals))
        return
    folds, root = fold_numbers(options.fold), find_root(Path.cwd())
    with options.chosen_engine(read_params(root / "params.yaml")) as engine:
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
