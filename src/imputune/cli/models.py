"""Commands on registered models: promote, register, predict, explain."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imputune.cli.app import AsJson, Dataset, OutcomeOption, app
from imputune.cli.options import takes
from imputune.errors import UserError
from imputune.runtime.console import counted, print_table, say
from imputune.settings.file import find_root

if TYPE_CHECKING:
    from imputune.pipeline.candidate import Decision

REFUSED = 3  # exit code of a promotion whose candidate failed a gate
SHOWN_VARIABLES = 12
OTHER_DATA = "Allow a candidate, or a champion, that was trained on other data or variables."

ModelOption = Annotated[str, typer.Option(help="Alias or version number.")]
Records = Annotated[
    Path, typer.Option(help="Folder or .tar.gz of .txt records, one .txt, or a table .csv, .csv.gz or .parquet.")
]


@app.command("promote")
def promote_command(
    dataset: Dataset = None,
    outcome: OutcomeOption = "",
    version: Annotated[
        str, typer.Option(help="Number of the version to test (default: the one with the best validation AUC).")
    ] = "",
    other_data: Annotated[bool, typer.Option("--other-data", help=OTHER_DATA)] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the decision, and change no alias.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Make the previous champion champion again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the registered version with the best validation AUC champion, if it passes the gates in params.yaml.

    Test scores never choose the candidate; they only confirm or refuse it. If it is refused, the exit code is 3.
    """
    from imputune.pipeline.candidate import Choice
    from imputune.pipeline.comparison_link import say_link
    from imputune.pipeline.project import Project
    from imputune.pipeline.promote import run_promote, run_rollback

    project = Project.open(find_root(Path.cwd()), dataset, outcome)
    if rollback:
        if version or other_data or dry_run or as_json:
            raise UserError("--rollback cannot be combined with other options: leave them out")
        champion, replaced = run_rollback(project)
        typer.echo(f"champion is version {champion} again; previous is version {replaced}")
        return
    decision = run_promote(project, Choice(version=version, other_data=other_data, dry_run=dry_run))
    if as_json:
        typer.echo(decision.model_dump_json(indent=1))
    else:
        _print_decision(decision)
    if not dry_run:
        say_link(project, "heads")
    if decision.outcome == "refused":
        raise typer.Exit(REFUSED)


@app.command("register")
def register_command(dataset: Dataset = None, outcome: OutcomeOption = "") -> None:
    """Register trained models in artifacts/ that the store lacks, as after `dvc pull dvc.yaml`; nothing is trained."""
    from imputune.pipeline.project import Project
    from imputune.pipeline.register import run_register

    project = Project.open(find_root(Path.cwd()), dataset, outcome)
    count = run_register(project, typer.echo)
    models = f"{count} model{'s' * (count > 1)}" if count else "no model"
    typer.echo(f"registered {models} of {project.dataset}")


@app.command("predict")
def predict_command(
    records: Records,
    dataset: Dataset = None,
    outcome: OutcomeOption = "",
    model: ModelOption = "champion",
    out: Annotated[Path | None, typer.Option(help="A .csv or .parquet for the risks (default: print them).")] = None,
    series: Annotated[Path | None, typer.Option(help="A .csv or .parquet for the imputed hourly series.")] = None,
) -> None:
    """Predict an outcome from raw records: risk, its deviation over the fold models, and whether it is high."""
    from imputune.pipeline.predict import (
        check_ending,
        load_model,
        read_stays,
        to_csv,
        write_table,
    )
    from imputune.pipeline.project import Project

    for path in (out, series):
        if path is not None:
            check_ending(path)
    _check_apart(records, out, series)
    loaded = load_model(Project.open(find_root(Path.cwd()), dataset, outcome), model)
    stays, notes = read_stays(loaded, records)
    risks = loaded.bundle.predict(stays)
    imputed = loaded.bundle.impute(stays) if series is not None else None
    for note in notes:
        say(f"note: {note}")
    if out is None:
        typer.echo(to_csv(risks), nl=False)
    else:
        write_table(risks, out)
        typer.echo(
            f"{out}: {counted(len(risks), 'stay')} by {loaded.name}, {int(risks['high_risk'].sum()):,} of high risk"
        )
    if series is not None and imputed is not None:
        write_table(imputed, series)


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """The options of explain."""

    records: Records
    dataset: Dataset = None
    outcome: OutcomeOption = ""
    model: ModelOption = "champion"
    stay: Annotated[str, typer.Option(help="RecordID; not needed if there is only one stay.")] = ""
    out: Annotated[
        Path | None, typer.Option(help="A .csv or .parquet for the attribution of every cell, statistic and fact.")
    ] = None
    figure: Annotated[Path | None, typer.Option(help="A .png or .svg of hours by variables, and of the rest.")] = None
    steps: Annotated[
        int, typer.Option(help="Points of the path from the baseline to the record.", min=2, max=10_000)
    ] = 128
    as_json: AsJson = False


@app.command("explain")
@takes(ExplainOptions)
def explain_command(options: ExplainOptions) -> None:
    """Show how much each value, statistic and static fact changed a stay's risk (integrated gradients, or TreeSHAP)."""
    from imputune.files import replace_bytes
    from imputune.pipeline.explain import explain_stay
    from imputune.pipeline.predict import (
        check_ending,
        load_model,
        read_stays,
        write_table,
    )
    from imputune.pipeline.project import Project
    from imputune.reporting.figures import attributions_figure, to_png, to_svg

    drawings = {".png": to_png, ".svg": to_svg}
    if options.out is not None:
        check_ending(options.out)
    if options.figure is not None and options.figure.suffix not in drawings:
        raise UserError(f"{options.figure} must end in .png or .svg: choose another file name")
    _check_apart(options.records, options.out, options.figure)
    if options.stay and not options.stay.isdecimal():
        raise UserError(f"--stay takes a whole number, a RecordID: got {options.stay!r}")
    loaded = load_model(Project.open(find_root(Path.cwd()), options.dataset, options.outcome), options.model)
    stays, notes = read_stays(loaded, options.records)
    explanation = explain_stay(loaded.bundle, stays, int(options.stay) if options.stay else None, options.steps)
    if options.out is not None:
        write_table(explanation.table, options.out)
    if options.figure is not None:
        window = loaded.bundle.about.window
        figure = attributions_figure(explanation.table, explanation.title, window)
        replace_bytes(options.figure, drawings[options.figure.suffix](figure))
    for note in notes:
        say(f"note: {note}")
    if options.as_json:
        typer.echo(explanation.to_json())
        return
    typer.echo(explanation.title)
    print_table("", explanation.header, explanation.largest(SHOWN_VARIABLES))
    say(f"attributions sum to the difference of the two risks up to {explanation.gap:.1e}")


def _check_apart(records: Path, *outputs: Path | None) -> None:
    """Refuse to write over the records, or one file over another."""
    taken = {records.resolve()}
    for path in outputs:
        if path is not None:
            if path.resolve() in taken:
                raise UserError(f"{path} is the records' file, or named twice: name another file to write")
            taken.add(path.resolve())


def _print_decision(decision: "Decision") -> None:
    lines = [(gate.name, gate.wanted, gate.found, "passed" if gate.passed else "FAILED") for gate in decision.gates]
    champion = f"champion is version {decision.champion}" if decision.champion else "no champion yet"
    typer.echo(
        f"{decision.model}: candidate is version {decision.candidate} ({decision.candidate_variant}), validation AUC "
        f"{decision.validation_auc:.4f}, test AUC {decision.test_auc:.4f}; {champion}"
    )
    if lines:
        print_table("Gates", ("gate", "wanted", "found", ""), lines)
    if difference := decision.difference:
        low, high = difference.interval
        over_folds = (
            "one split has no p-value"
            if difference.p_value is None
            else f"over folds: corrected resampled t-test p = {difference.p_value:.3f}"
        )
        typer.echo(
            f"test AUC minus the champion's, paired: {difference.mean:+.4f} (95 % {low:+.4f} to {high:+.4f}, bootstrap "
            f"over test stays); {over_folds}"
        )
    for reason, count in decision.left_out.items():
        say(f"note: {counted(count, 'version')} {reason} {'was' if count == 1 else 'were'} left out")
    typer.echo(f"dry run, no alias changed: {decision.outcome}" if decision.dry_run else decision.outcome_sentence)
