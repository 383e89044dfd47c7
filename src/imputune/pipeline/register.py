"""The command register: register trained models in artifacts/ that the store does not have, without training.

They come from another clone by `dvc pull dvc.yaml`, or the store was lost.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from imputune.artifacts.stage_files import RESULT, read_fold, read_training
from imputune.artifacts.stage_output import TrainingOutput
from imputune.errors import UserError
from imputune.pipeline.blend_members import finished_members
from imputune.pipeline.inputs import pretrain_first, pretrained_imputers, read_imputer
from imputune.pipeline.model_cards import Trained, write_trained_card
from imputune.pipeline.project import DividedCohort, Project, exclusive, read_divided_cohort
from imputune.pipeline.recording import (
    log_curves,
    log_risks,
    log_summary,
    register_blend,
    register_classifier,
    register_imputer,
    replay,
)
from imputune.pipeline.run_subject import divided_input, outcome_tags, project_subject, training_subject
from imputune.pipeline.tracked import track
from imputune.protocol.imputers import imputer_kind
from imputune.registry.names import classifier_name, imputer_name
from imputune.registry.register import THRESHOLD_RULE, TRAINED_RUN, version_of_run
from imputune.registry.versions import Registry
from imputune.reporting.run_notes import auc_result, pretraining_result
from imputune.runtime.console import counted
from imputune.tracking.store import active_run, open_store

LOCK = "lock.register"
Say = Callable[[str], None]
"""Shows the user a line."""


def run_register(project: Project, say: Say) -> int:
    """Register every trained model in artifacts/ of the present data and folds; return how many were registered.

    Each gets a run with the curves and scores of its training. `say` gets a line for every model. Outputs of a command
    that did not end are left alone, and so are models that the store has already; one that has no description, as from
    an earlier version of imputune, gets its model card. Raises UserError when nothing was trained.
    """
    data = read_divided_cohort(project).for_outcome(project.outcome)
    with exclusive(project.unfinished_folder / LOCK, f"registering models of {project.dataset}"):
        outputs = list(_outputs(project, data, say))
        if not outputs:
            raise UserError(
                f"artifacts/{project.dataset} has no model to register: train with `imputune pretrain` and `imputune "
                "finetune`, or bring trained models with `dvc pull dvc.yaml`"
            )
        uri = open_store(project.root)
        missing = [(folder, output) for folder, output in outputs if _is_missing(project, uri, output, say)]
        for folder, output in outputs:
            if (folder, output) not in missing:
                _add_card(project, data, folder, output, say)
        if missing:
            doing = f"Registers {counted(len(missing), 'model')} of **{project.dataset}** from artifacts/."
            subject = project_subject(project, "register", doing, divided_input(data, "training"))
            with track(project, subject, settings={}) as run:
                lines = []
                for folder, output in missing:
                    lines.append(_register(project, data, folder, output, run.run_id))
                    say(lines[-1])
                run.describe("\n".join(f"- {line}" for line in lines))
    return len(missing)


def _outputs(project: Project, data: DividedCohort, say: Say) -> Iterator[tuple[Path, TrainingOutput]]:
    """Yield the folder and content of every output that training would have registered: imputers first, blends last."""
    blends = []
    for name in pretrained_imputers(project):
        if not imputer_kind(name).is_registered:
            continue
        remedy = pretrain_first(project.dataset, name)
        imputer = read_imputer(project, name, remedy)
        try:
            data.origin.check(imputer.made_from, project.imputer_folder(name), remedy)
        except UserError as error:
            say(f"{name} and its heads are skipped: {error}")
            continue
        yield project.imputer_folder(name), imputer
        for path in sorted(project.heads_folder(name).glob(f"[!.]*/{RESULT}")):
            output = read_training(path.parent, f"delete {path.parent}, or fine-tune that variant again")
            if output.made_from.imputer_run_id != imputer.run_id:
                say(f"{output.variant.label} was fine-tuned on another pretraining and is skipped")
            elif output.variant.is_blend:
                blends.append((path.parent, output))
            elif output.variant.is_registered and not (output.variant.is_neural or output.folds[0].boosters_sha256):
                say(f"{output.variant.label} was trained before its trees were kept and is skipped: fine-tune it again")
            elif output.variant.is_registered:
                yield path.parent, output
    for folder, output in blends:
        try:
            finished_members(project, output.made_from)
        except UserError as error:
            say(f"{output.variant.label} is skipped: {error}")
        else:
            yield folder, output


def _is_missing(project: Project, uri: str, output: TrainingOutput, say: Say) -> bool:
    """Say whether the store lacks the model of an output whose training ended."""
    label = _label(output)
    if version := version_of_run(uri, _name(project, output), output.run_id):
        wanted, found = project.params.threshold.label, _threshold_rule(project, output, version)
        if not output.made_from.variant or found == wanted:
            say(f"{label} is version {version} of {_name(project, output)} already")
            return False
        say(f"{label} is version {version} with another threshold rule ({found}): registered again with {wanted}")
        return True
    run = active_run(uri, output.run_id)
    if run is not None and run.info.status != "FINISHED":
        say(f"{label} is skipped: its training did not end; run that command again")
        return False
    return True


def _add_card(project: Project, data: DividedCohort, folder: Path, output: TrainingOutput, say: Say) -> None:
    """Give the registered version of an output its model card if it has no description."""
    registry = Registry(project.root, name := _name(project, output))
    number = version_of_run(registry.uri, name, output.run_id)
    if not number or (version := registry.find(number)).description:
        return
    folds = [read_fold(folder, output, fold.fold, with_weights=False) for fold in output.folds]
    about = registry.load(version).about
    trained = Trained(data=data, folds=folds, made_from=output.made_from, about=about)
    write_trained_card(project, name, number, trained)
    say(f"version {number} of {name} has a model card now")


def _threshold_rule(project: Project, output: TrainingOutput, version: str) -> str:
    """Return the rule by which a version's threshold was found."""
    registry = Registry(project.root, _name(project, output))
    return registry.find(version).tag(THRESHOLD_RULE) or "youden"


def _register(project: Project, data: DividedCohort, folder: Path, output: TrainingOutput, parent: str) -> str:
    """Register an output's fold models, tracked as one run; return a line that says so."""
    made_from, name = output.made_from, _name(project, output)
    trained = project.with_imputer(made_from.settings)
    folds = [read_fold(folder, output, fold.fold) for fold in output.folds]
    tags = {"imputer": made_from.imputer, TRAINED_RUN: output.run_id}
    tags |= (made_from.variant.tags() | outcome_tags(made_from) if made_from.variant else {}) | made_from.also_tags()
    subject = training_subject(made_from, [divided_input(data, "training")], "register")
    with track(project, subject, settings=made_from.settings, tags=tags, folds=data.numbers, parent=parent) as run:
        for fold in folds:
            replay(run, fold)
        log_summary(run, made_from, folds)
        scores = [fold.scores for fold in folds]
        run.describe(auc_result(scores) if made_from.variant else pretraining_result(scores))
        if made_from.variant is not None:
            log_risks(run, made_from.variant, data.cohort, folds)
        if made_from.variant is not None and made_from.variant.is_blend:
            version = register_blend(run, project, data, folds, made_from, trained_run=output.run_id)
            return f"{_label(output)} is version {version} of {name}"
        if made_from.variant is None or made_from.variant.is_neural:
            log_curves(run, folds, "loss")
        if made_from.variant is None:
            version = register_imputer(run, trained, data, folds, made_from, trained_run=output.run_id)
        else:
            version = register_classifier(run, trained, data, folds, made_from, trained_run=output.run_id)
    return f"{_label(output)} is version {version} of {name}"


def _name(project: Project, output: TrainingOutput) -> str:
    made_from = output.made_from
    return (
        classifier_name(project.dataset, project.outcome)
        if made_from.variant
        else imputer_name(made_from.imputer, project.dataset)
    )


def _label(output: TrainingOutput) -> str:
    return output.made_from.variant.label if output.made_from.variant else output.made_from.imputer
