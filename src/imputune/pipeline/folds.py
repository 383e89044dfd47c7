"""The command folds: draw the folds of a cohort, write and track them."""

from imputune.data.cohort import cohort_hash, read_cohort
from imputune.data.folds import Fold, divide, write_folds
from imputune.pipeline.project import Project
from imputune.pipeline.run_subject import cohort_input, project_subject
from imputune.pipeline.tracked import track


def run_folds(project: Project) -> list[Fold]:
    """Draw the folds of the project's cohort, write and track them; see `data.folds` for the errors."""
    cohort, digest = read_cohort(project.cohort_folder), cohort_hash(project.cohort_folder)
    folds = divide(cohort, project.params.folds, project.params.seed)
    settings = {"folds": project.fold_settings}
    doing = f"Divides the stays of **{project.dataset}** into folds: {project.division.label}."
    subject = project_subject(project, "folds", doing, cohort_input(project.dataset, cohort, digest, "training"))
    with track(project, subject, settings=settings) as run:
        write_folds(folds, cohort, digest, project.folds_file, project.params.folds)
        first = folds[0]
        sizes = {"train": first.train, "validation": first.validation, "test": first.test}
        run.log_metrics({f"{split}_stays_of_fold_0": float(len(stays)) for split, stays in sizes.items()})
        shares = ", ".join(f"{len(stays):,} {split}" for split, stays in sizes.items())
        run.describe(f"Stays of fold 0: {shares}.")
    return folds
