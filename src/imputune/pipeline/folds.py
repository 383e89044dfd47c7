"""The command folds: draw the folds of a cohort, write and track them."""

from imputune.data.cohort import cohort_hash, read_cohort
from imputune.data.folds import Fold, divide, write_folds
from imputune.pipeline.project import Project
from imputune.runtime.console import counted, warn


def run_folds(project: Project) -> list[Fold]:
    """Draw the folds of the project's cohort, write and track them; see `data.folds` for the errors.

    If they take the place of other folds, a note says what was trained on those.
    """
    cohort, digest = read_cohort(project.cohort_folder), cohort_hash(project.cohort_folder)
    folds = divide(cohort, project.params.folds, project.params.seed)

    # Here, because these load MLflow: a cohort with too few stays is refused seconds earlier.
    from imputune.pipeline.run_subject import cohort_input, project_subject
    from imputune.pipeline.tracked import track

    settings = {"folds": project.fold_settings}
    doing = f"Divides the stays of **{project.dataset}** into folds: {project.division.label}."
    subject = project_subject(project, "folds", doing, cohort_input(project.dataset, cohort, digest, "training"))
    with track(project, subject, settings=settings) as run:
        earlier = project.folds_file.read_bytes() if project.folds_file.is_file() else None
        write_folds(folds, cohort, digest, project.folds_file, project.params.folds)
        if earlier is not None and project.folds_file.read_bytes() != earlier:
            _tell_of_earlier_folds(project)
        first = folds[0]
        sizes = {"train": first.train, "validation": first.validation, "test": first.test}
        run.log_metrics({f"{split}_stays_of_fold_0": float(len(stays)) for split, stays in sizes.items()})
        shares = ", ".join(f"{len(stays):,} {split}" for split, stays in sizes.items())
        run.describe(f"Stays of fold 0: {shares}.")
    return folds


def _tell_of_earlier_folds(project: Project) -> None:
    """Say what was trained on the folds that were replaced; nothing if nothing was."""
    from imputune.artifacts.stage_files import RESULT

    folder = project.artifacts_folder
    imputers = sorted(path.parent.name for path in folder.glob(f"imputers/*/{RESULT}"))
    heads = len(list(folder.glob(f"heads/*/*/*/{RESULT}")))
    if not imputers and not heads:
        return
    trained = [f"the imputer{'s' * (len(imputers) > 1)} {', '.join(imputers)}"] if imputers else []
    trained += [counted(heads, "variant")] if heads else []
    line = (
        f"note: these folds are others than before. On the earlier ones were trained: {' and '.join(trained)}; "
        f"run `imputune pretrain {project.dataset}` and what follows again"
    )
    if heads:
        line += ". Registered versions, a champion among them, stay as they are until then"
    warn(line)
