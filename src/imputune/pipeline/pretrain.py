"""The command pretrain."""

from typing import Any

from imputune.artifacts.checkpoints import Checkpoints
from imputune.artifacts.stage_output import write_stage
from imputune.pipeline.project import (
    IMPUTER_SECTIONS,
    Project,
    Watch,
    about,
    only_one,
    read_divided,
    settings_of,
    track_training,
)
from imputune.pipeline.recording import log_curves, log_summary, register, retell
from imputune.protocol.imputers import PRETRAINED, check_installed
from imputune.runtime.workers import run_folds
from imputune.settings.names import ImputerName
from imputune.tracking.interrupted import end_interrupted
from imputune.training.pretrain import PretrainJob, pretrain_fold


def run_pretrain(project: Project, watch: Watch, imputer: ImputerName = PRETRAINED) -> dict[str, Any]:
    """Pretrain an imputer on every fold, track it, write artifacts, register it if it is CSAI; return the result.

    Folds that an interrupted command had finished, from the same data, folds and settings, are not trained again.
    Raises UserError when the cohort or its folds are missing or do not belong together, the imputer's package is not
    installed, or another command is pretraining the same imputer.
    """
    check_installed(imputer)
    data = read_divided(project)
    params = project.params
    told = about(project, data) | {
        "stage": "pretrain",
        "imputer": imputer,
        "params": settings_of(project, *IMPUTER_SECTIONS),
    }
    folder = project.unfinished_folder / f"pretrain-{imputer}"
    with only_one(project.unfinished_folder / f"lock.{imputer}", f"pretraining {imputer} on {project.dataset}"):
        checkpoints = Checkpoints(folder, told)
        if (interrupted := checkpoints.run_id) and end_interrupted(project.root, interrupted):
            checkpoints.remove()  # the command was killed between the end of its run and this
        done = checkpoints.begin()
        with track_training(project, data, "pretrain", told, {"imputer": imputer}) as run:
            checkpoints.run_id = run.run_id
            for result in done.values():
                retell(run, result)
            jobs = [PretrainJob(data.cohort, fold, params, imputer) for fold in data.folds if fold.number not in done]
            with watch(run, project.budget.pretrain_epochs) as recorder:
                trained = run_folds(pretrain_fold, jobs, recorder, params.workers, checkpoints.save)
            done |= {result.fold: result for result in trained}
            results = [done[fold.number] for fold in data.folds]
            log_summary(run, told, results)
            if results[0].history:
                log_curves(run, results, "loss")
                if "validation_mae" in results[0].history[0]:  # CSDI looks at none
                    log_curves(run, results, "mae")
            run.log_dict({str(result.fold): result.imputation for result in results}, "imputation.json")
            write_stage(project.imputer_folder(imputer), told | {"run_id": run.run_id}, results)
            if imputer == PRETRAINED:
                register(run, project, data, results)
        checkpoints.remove()
    return told | {"run_id": run.run_id, "results": results}
