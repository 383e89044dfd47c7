"""The command folds."""

from imputune.data.cohort import cohort_hash, read_cohort
from imputune.data.folds import Fold, draw_folds, write_folds
from imputune.pipeline.project import (
    Project,
    track,
)


def run_folds_stage(project: Project) -> list[Fold]:
    """Draw the folds of the project's cohort, write and track them; see `data.folds` for the errors."""
    cohort, digest = read_cohort(project.cohort_folder), cohort_hash(project.cohort_folder)
    folds = draw_folds(cohort, project.params.folds.count, project.params.seed)
    settings = {"folds": project.params.folds.model_dump()}
    with track(project, digest, "folds", settings, {}, folds=()) as run:
        write_folds(folds, cohort, digest, project.folds_file)
        sizes = {part: float(len(getattr(folds[0], part))) for part in ("train", "validation", "test")}
        run.log_metrics({f"{part}_stays_of_fold_0": size for part, size in sizes.items()})
    return folds
