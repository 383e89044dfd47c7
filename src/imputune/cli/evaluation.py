"""Commands on another cohort: evaluate and recalibrate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imputune.cli.app import AsJson, Dataset, OutcomeOption, app
from imputune.cli.models import ModelOption
from imputune.cli.options import cohort_folder
from imputune.protocol.outcome_words import outcome_words
from imputune.runtime.console import counted, print_table, say, warn
from imputune.settings.file import find_root

if TYPE_CHECKING:
    from imputune.evaluation.subgroups import GroupScores, Interval
    from imputune.pipeline.evaluate import Evaluation

CohortFolder = Annotated[
    Path, typer.Option(help="Folder of a cohort, as `imputune extract` writes it, or its name in data/.")
]
SCORE_WORDS = {
    "auc": ("AUC", "1 is best"),
    "auprc": ("AUPRC", "1 is best; chance gives the outcome rate"),
    "brier": ("Brier score", "0 is best"),
    "calibration_error": ("calibration error", "0 is best"),
    "calibration_slope": ("calibration slope", "1 is best; below 1, risks are too extreme"),
    "calibration_intercept": ("calibration intercept", "0 is best; below 0, risks are too high"),
    "challenge_event_1": ("min(sensitivity, PPV)", "1 is best"),
    "challenge_event_2": ("H, challenge 2012", "0 is best; grows with the number of stays"),
}
NOT_CHECKED = "note: the model's training cohort is not in data/: whether it shares stays with this one was not checked"


@app.command("evaluate")
def evaluate_command(
    data: CohortFolder,
    dataset: Dataset = None,
    outcome: OutcomeOption = "",
    model: ModelOption = "champion",
    as_json: AsJson = False,
) -> None:
    """Measure a model on a cohort it was not trained on: scores and calibration with intervals, by group of stays."""
    from imputune.pipeline.evaluate import run_evaluate, too_few
    from imputune.pipeline.project import Project

    evaluation, path = run_evaluate(Project.open(find_root(Path.cwd()), dataset, outcome), model, cohort_folder(data))
    if as_json:
        typer.echo(evaluation.model_dump_json(indent=1))
        return
    words = outcome_words(evaluation.outcome)
    header = ("group", "level", "stays", words.events, "AUC", "AUPRC", "Brier", "sensitivity", "specificity")
    title = f"{evaluation.model} version {evaluation.version} on {evaluation.cohort}: 95 % bootstrap intervals"
    print_table(title, header, [_group_line(group) for group in evaluation.groups])
    if scores := score_lines(evaluation):
        print_table("All stays", ("score", "value", ""), scores)
        points = [
            (f"{point.risk:.3f}", _interval(point.outcome_rate), f"{point.stays:,}")
            for point in evaluation.groups[0].calibration
        ]
        print_table("Calibration", ("mean risk", words.share, "stays"), points)
    else:
        warn(f"note: {too_few(evaluation.groups[0], evaluation.outcome)}")
    _say_unlabelled(evaluation.unlabelled, evaluation.outcome)
    if not evaluation.checked_against_training:
        warn(NOT_CHECKED)
    if evaluation.recalibrated_on:
        warn(
            f"note: the version was recalibrated on {evaluation.recalibrated_on}; whether that cohort shares stays "
            "with this one was not checked"
        )
    for name, count in evaluation.pretrained_on.items():
        warn(f"note: not external: {count:,} of these stays pretrained the model's imputer, without outcomes ({name})")
    for name in evaluation.unchecked_cohorts:
        warn(f"note: the imputer was pretrained on {name}, which is not in data/: shared stays were not checked")
    if not scores:
        if path:
            say(f"results are in {path}")
        return
    kept = f"; results are in {path}, the decision curve is in {path.with_suffix('.png').name}" if path else ""
    rule = f"{evaluation.threshold:.3f} (rule: {evaluation.threshold_rule})"
    say(f"sensitivity, specificity and PPV are at the model's threshold, {rule}{kept}")


@app.command("recalibrate")
def recalibrate_command(
    data: CohortFolder,
    dataset: Dataset = None,
    outcome: OutcomeOption = "",
    model: ModelOption = "champion",
    as_json: AsJson = False,
) -> None:
    """Correct a model's risks for another site by a slope and an intercept; registers a new version of the model."""
    from imputune.pipeline.project import Project
    from imputune.pipeline.recalibrate import run_recalibrate

    result = run_recalibrate(Project.open(find_root(Path.cwd()), dataset, outcome), model, cohort_folder(data))
    if as_json:
        typer.echo(result.model_dump_json(indent=1))
        return
    lines = [
        (SCORE_WORDS[name][0], f"{result.before[name]:.3f}", f"{result.after[name]:.3f}")
        for name in SCORE_WORDS
        if name in result.before
    ]
    print_table("", ("score", "before", "after"), lines)
    typer.echo(
        f"version {result.version} of {result.model} is version {result.source} recalibrated on {result.cohort} "
        f"({counted(result.stays, 'stay')}, {outcome_words(result.outcome).counted(result.events)}): "
        f"logit(risk) = {result.line.intercept:+.3f} {result.line.slope:+.3f} * logit(mean risk of the fold models)"
    )
    _say_unlabelled(result.unlabelled, result.outcome)
    if not result.checked_against_training:
        warn(NOT_CHECKED)
    for further, count in result.pretrained_on.items():
        warn(f"note: {count:,} of these stays pretrained the model's imputer, without outcomes ({further})")
    say(
        "the scores after are of the stays that the line was fitted to: measure the new version on other stays "
        f"(`imputune evaluate --model {result.version}`)"
    )


def _say_unlabelled(stays: int, outcome: str) -> None:
    if stays:
        warn(f"note: {counted(stays, 'stay')} without a label of {outcome} left out")


def score_lines(evaluation: "Evaluation") -> list[tuple[str, str, str]]:
    """Return the scores of all stays with what to compare them with."""
    lines = []
    for name, interval in evaluation.groups[0].scores.items():
        words, meaning = SCORE_WORDS[name]
        if landmark := evaluation.landmarks.get(name):
            meaning += f"; challenge 2012's winner on set-c: {landmark:g}"
        lines.append((words, _interval(interval), meaning))
    return lines


def _group_line(group: "GroupScores") -> tuple[str, ...]:
    counts = (group.group, group.level, f"{group.stays:,}", f"{group.events:,}")
    if group.sensitivity is None or group.specificity is None:
        return (*counts, "too few", "", "", "", "")
    scores = (_interval(group.scores[name]) for name in ("auc", "auprc", "brier"))
    return (*counts, *scores, f"{group.sensitivity:.3f}", f"{group.specificity:.3f}")


def _interval(interval: "Interval") -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
