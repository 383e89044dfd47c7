"""The command pretrain: train an imputer on every fold, score it, write and track it, register it if it is CSAI."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from imputune.artifacts.checkpoints import Checkpoints
from imputune.artifacts.stage_files import find_training, weights_file, write_training
from imputune.artifacts.stage_output import MadeFrom, TrainedFold, TrainingOutput
from imputune.pipeline.further_cohorts import further_folders, read_further
from imputune.pipeline.kept_results import keep_imputer
from imputune.pipeline.project import EpochProgress, Project, exclusive, imputer_settings, read_divided_cohort
from imputune.pipeline.recording import log_curves, log_summary, register_imputer, replay
from imputune.pipeline.run_subject import cohort_input, divided_input, training_subject
from imputune.pipeline.tracked import track_training
from imputune.protocol.imputers import DEFAULT_IMPUTER, check_installed, imputer_kind
from imputune.reporting.run_notes import pretraining_result
from imputune.runtime.console import say
from imputune.runtime.epoch_lines import TrainingPlan
from imputune.runtime.workers import run_fold_jobs
from imputune.settings.names import ImputerName
from imputune.tracking.interrupted import end_interrupted
from imputune.tracking.runs import TrackedRun
from imputune.training.pretrain import PretrainJob, pretrain_fold


def run_pretrain(
    project: Project,
    progress: EpochProgress,
    imputer: ImputerName = DEFAULT_IMPUTER,
    also: Sequence[Path] = (),
    *,
    again: bool = True,
) -> TrainingOutput:
    """Pretrain an imputer on every fold, anew; return its output.

    Unless `again`, an imputer that was pretrained from the same data, folds and settings is left as it is.

    An imputer with a name of its own also trains on the stays of further cohorts: those in the folders `also`, or
    those under also in params.yaml.

    Folds that an interrupted command had finished, from the same data, folds and settings, are not trained again. If
    it had finished all its work, its output is returned.
    Raises UserError when the cohort or its folds are missing or do not belong together, the imputer's package is not
    installed, another command is pretraining the same imputer, or a further cohort does not fit; see `read_further`.
    """
    check_installed(imputer)
    folders = further_folders(project, imputer, also)
    data = read_divided_cohort(project)
    further = read_further(data, folders)
    params = project.params
    made_from = MadeFrom.at(
        data.origin,
        stage="pretrain",
        imputer=imputer,
        settings=imputer_settings(project, imputer),
        also=tuple(each.about for each in further),
    )
    unfinished = project.unfinished_folder
    with exclusive(unfinished / f"lock.{imputer}", f"pretraining {imputer} on {project.dataset}"):
        checkpoints = Checkpoints(unfinished / f"pretrain-{imputer}", made_from)
        if (interrupted := checkpoints.run_id) and end_interrupted(project.root, interrupted):
            finished = find_training(project.imputer_folder(imputer))
            checkpoints.remove()
            if finished and finished.run_id == interrupted and not finished.made_from.differences(made_from):
                return finished  # the command was stopped between the end of its run and that of itself
        elif not again and not interrupted and (finished := _finished(project, made_from, data.numbers)):
            say(f"{imputer} is pretrained already")
            return finished
        done = checkpoints.begin()
        more = [cohort_input(each.about.name, each.cohort, each.about.cohort_hash, "training") for each in further]
        subject = training_subject(made_from, [divided_input(data, "training"), *more])
        if also:  # the paths of the folders are not recorded
            subject = replace(subject, options={"also": ",".join(["FOLDER"] * len(also)), "name": imputer})
        with track_training(project, made_from, data, subject) as run:
            checkpoints.run_id = run.run_id
            for fold in done.values():
                replay(run, fold)
            jobs = [
                PretrainJob(
                    cohort=data.cohort,
                    fold=fold,
                    params=params,
                    imputer=imputer,
                    further=tuple(each.cohort for each in further),
                )
                for fold in data.folds
                if fold.number not in done
            ]
            plan = TrainingPlan(
                label=imputer,
                epochs=project.budget.pretrain_epochs,
                folds=len(jobs),
                workers=max(1, min(project.engine.at_once, len(jobs))),
            )
            with progress(run, plan) as recorder:
                trained = run_fold_jobs(pretrain_fold, jobs, recorder, project.engine, checkpoints.save)
            done |= {fold.fold: fold for fold in trained}
            folds = [done[number] for number in data.numbers]
            _log(run, made_from, folds)
            if further:
                stays = {fold.number: len(fold.train) + made_from.also_stays for fold in data.folds}
                run.log_metrics({f"training_stays_fold_{fold}": float(count) for fold, count in stays.items()})
            output = TrainingOutput(made_from=made_from, run_id=run.run_id, folds=tuple(fold.record for fold in folds))
            write_training(project.imputer_folder(imputer), output, folds)
            if imputer_kind(imputer).is_registered:
                register_imputer(run, project, data, folds, made_from)
            keep_imputer(project, output, run)
            run.describe(pretraining_result([fold.scores for fold in folds]))
        checkpoints.remove()
    return output


def _finished(project: Project, made_from: MadeFrom, folds: Sequence[int]) -> TrainingOutput | None:
    """Return the output of an imputer that was pretrained from this, and has the weights of all folds."""
    folder = project.imputer_folder(made_from.imputer)
    found = find_training(folder)
    is_whole = found is not None and all(weights_file(folder, number).is_file() for number in folds)
    return found if found and is_whole and not found.made_from.differences(made_from) else None


def _log(run: TrackedRun, made_from: MadeFrom, folds: Sequence[TrainedFold]) -> None:
    log_summary(run, made_from, folds)
    if folds[0].history:
        log_curves(run, folds, "loss")
        if "validation_mae" in folds[0].history[0]:  # CSDI is not scored after every epoch
            log_curves(run, folds, "mae")
    errors: dict[str, JsonValue] = {str(fold.fold): [each.model_dump() for each in fold.imputation] for fold in folds}
    run.log_dict(errors, "imputation.json")
