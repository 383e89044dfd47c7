"""What training commands log of their results, and how they register them."""

from collections.abc import Sequence
from statistics import fmean

import pandas as pd
from pydantic import JsonValue

from imputune.artifacts.stage_files import each_tested_once
from imputune.artifacts.stage_output import MadeFrom, TrainedFold
from imputune.data.cohort import Cohort
from imputune.evaluation.metrics import sensitivity_threshold, youden_threshold
from imputune.imputers.build import csai_sizes
from imputune.pipeline.blend_members import finished_members
from imputune.pipeline.model_cards import Trained, card_failures, write_trained_card
from imputune.pipeline.project import DividedCohort, Project
from imputune.pipeline.run_subject import outcome_tags
from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.protocol.variants import Variant
from imputune.registry.bundle import BundleAbout, MemberAbout
from imputune.registry.bundle_file import MemberContent
from imputune.registry.names import classifier_name, imputer_name
from imputune.registry.register import THRESHOLD_RULE, TRAINED_RUN, register_bundle, version_of_run
from imputune.reporting.figures import curves_figure, to_png
from imputune.reporting.imputer_figures import risk_figure
from imputune.reporting.run_notes import variant_name
from imputune.settings.schema import Threshold
from imputune.tracking.runs import TrackedRun


def replay(run: TrackedRun, fold: TrainedFold) -> None:
    """Record a fold in a run that began after the fold was finished."""
    for epoch, metrics in enumerate(fold.history):
        run.epoch(fold.fold, epoch, metrics)
    for trial in fold.trials:
        run.trial_finished(fold.fold, trial)
    run.fold_finished(fold.fold, fold.final_metrics)


def log_summary(run: TrackedRun, made_from: MadeFrom, folds: Sequence[TrainedFold]) -> None:
    """Log the means over folds, the seconds of all, and every fold's scores as scores.json."""
    means = {name: fmean(fold.scores[name] for fold in folds) for name in folds[0].scores}
    if errors := [mean for name, mean in means.items() if name.startswith("test_mae_")]:
        means["mae"] = fmean(errors)  # of an imputer: over masking patterns
    run.log_metrics(means | {"seconds": sum(fold.seconds for fold in folds)})
    scores: list[JsonValue] = [{"fold": fold.fold, **fold.scores} for fold in folds]
    run.log_dict({"cohort_hash": made_from.cohort_hash, "folds": scores}, "scores.json")


def log_curves(run: TrackedRun, folds: Sequence[TrainedFold], metric: str) -> None:
    """Log a figure of every fold's training and validation curves."""
    histories = {fold.fold: fold.history for fold in folds}
    run.log_picture(to_png(curves_figure(histories, metric, f"{metric} by epoch")), f"figures/{metric}.png")


def log_risks(run: TrackedRun, variant: Variant, cohort: Cohort, folds: Sequence[TrainedFold]) -> None:
    """Log a figure of ROC, precision and recall, and calibration, over the test stays of all folds."""
    predictions = pd.concat([fold.predictions for fold in folds])
    test = each_tested_once(predictions)
    risks = cohort.outcome_of(test["stay_id"].to_numpy()), test["risk"].to_numpy()
    run.log_picture(to_png(risk_figure({variant_name(variant): risks}, cohort.outcome)), "figures/risks.png")


def register_imputer(
    run: TrackedRun,
    project: Project,
    data: DividedCohort,
    folds: Sequence[TrainedFold],
    made_from: MadeFrom,
    *,
    trained_run: str = "",
) -> str:
    """Register the fold models of an imputer as one version, and return it.

    trained_run: the id of the run that trained them, if it is not this run.
    """
    about = _about(project, data, folds)
    lineage = _lineage(made_from, trained_run)
    name = imputer_name(made_from.imputer, project.dataset)
    version = register_bundle(run, name, about, list(folds), lineage)
    _write_card(project, name, version, Trained(data=data, folds=folds, made_from=made_from, about=about))
    return version


def register_classifier(
    run: TrackedRun,
    project: Project,
    data: DividedCohort,
    folds: Sequence[TrainedFold],
    made_from: MadeFrom,
    *,
    trained_run: str = "",
) -> str:
    """Register the fold models of a variant as one version, and return it; its lineage has the imputer's version.

    trained_run: the id of the run that trained them, if it is not this run. Raises ValueError without a variant.
    """
    variant = made_from.variant
    if variant is None:
        raise ValueError(f"output of stage {made_from.stage} has no variant")
    about = _about(project, data, folds, variant)
    name = imputer_name(variant.imputer, project.dataset)
    imputer_version = version_of_run(run.tracking_uri, name, made_from.imputer_run_id)
    lineage = _lineage(made_from, trained_run) | variant.tags()
    lineage |= {"imputer_run": made_from.imputer_run_id, "imputer_version": imputer_version}
    lineage[THRESHOLD_RULE] = project.params.threshold.label
    name = classifier_name(project.dataset, project.outcome)
    version = register_bundle(run, name, about, list(folds), lineage)
    _write_card(project, name, version, Trained(data=data, folds=folds, made_from=made_from, about=about))
    return version


def register_blend(
    run: TrackedRun,
    project: Project,
    data: DividedCohort,
    folds: Sequence[TrainedFold],
    made_from: MadeFrom,
    *,
    trained_run: str = "",
) -> str:
    """Register a blend with its members as one version, and return it; its lineage has the members' versions.

    trained_run: the id of the run that trained it, if it is not this run. Raises UserError if a member is missing.
    """
    if made_from.variant is None:
        raise ValueError("a blend must have a variant")
    members = finished_members(project, made_from)
    contents, abouts = [], []
    for member in members:
        variant, member_folds = member.output.variant, member.folds()
        trained = project.with_imputer(member.output.made_from.settings)
        contents.append(MemberContent(_about(trained, data, member_folds, variant), member_folds))
        version = version_of_run(
            run.tracking_uri, classifier_name(project.dataset, project.outcome), member.output.run_id
        )
        abouts.append(MemberAbout(label=variant.label, version=version))
    about = contents[0].about.model_copy(
        update={
            "static": next((each.about.static for each in contents if each.about.static), ()),
            "head": made_from.variant.head,
            "input": made_from.variant.input,
            "mlp_width": None,
            "threshold": find_threshold(folds, data.cohort, project.params.threshold),
            "members": tuple(abouts),
        }
    )
    lineage = _lineage(made_from, trained_run) | made_from.variant.tags()
    lineage |= {THRESHOLD_RULE: project.params.threshold.label, "members": ",".join(each.label for each in abouts)}
    lineage |= {"member_runs": ",".join(member.output.run_id for member in members)}
    lineage |= {"member_versions": ",".join(each.version for each in abouts)}
    name = classifier_name(project.dataset, project.outcome)
    version = register_bundle(run, name, about, list(folds), lineage, members=contents)
    _write_card(project, name, version, Trained(data=data, folds=folds, made_from=made_from, about=about))
    return version


def _write_card(project: Project, name: str, version: str, trained: Trained) -> None:
    """Give a registered version its card; if the store fails, only warn: the model is trained and registered."""
    with card_failures(name, version, "; `imputune register` writes it later"):
        write_trained_card(project, name, version, trained)


def _about(
    project: Project, data: DividedCohort, folds: Sequence[TrainedFold], variant: Variant | None = None
) -> BundleAbout:
    _, hours, variables = data.cohort.values_NTD.shape
    return BundleAbout(
        dataset=project.dataset,
        outcome=data.cohort.outcome if variant else DEFAULT_OUTCOME,
        variables=data.cohort.variables,
        static=data.cohort.static_variables if variant and "static" in variant.record_parts else (),
        sizes=csai_sizes(project.params, variables, hours, data.cohort.bin_hours),
        mlp_width=project.params.heads.mlp_width if variant and variant.is_neural else None,
        head=variant.head if variant else None,
        input=variant.input if variant else None,
        folds=tuple(fold.fold for fold in folds),
        threshold=find_threshold(folds, data.cohort, project.params.threshold) if variant else None,
        threshold_rule=project.params.threshold.label if variant else None,
    )


def _lineage(made_from: MadeFrom, trained_run: str) -> dict[str, str]:
    lineage = {"cohort_hash": made_from.cohort_hash, "folds_hash": made_from.folds_hash, **made_from.also_tags()}
    lineage["protocol"] = made_from.division.label
    lineage |= outcome_tags(made_from) if made_from.variant else {}
    return lineage | {TRAINED_RUN: trained_run} if trained_run else lineage


def find_threshold(folds: Sequence[TrainedFold], cohort: Cohort, settings: Threshold) -> float:
    """Return the threshold of a bundle by the rule in params.yaml.

    It comes from the risks that each fold's model gives its validation stays. The rule is no setting of the variant's
    training and no parameter of a stage of dvc.yaml: it changes neither weights nor scores, so that a new rule trains
    nothing again.
    """
    predictions = pd.concat([fold.predictions for fold in folds])
    validation = predictions[predictions["split"] == "validation"]
    outcome_N, risk_N = cohort.outcome_of(validation["stay_id"].to_numpy()), validation["risk"].to_numpy()
    if settings.rule == "youden":
        return youden_threshold(outcome_N, risk_N)
    return sensitivity_threshold(outcome_N, risk_N, settings.sensitivity)
