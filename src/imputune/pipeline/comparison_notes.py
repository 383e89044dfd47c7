"""Notes of a comparison: unfinished variants, changed settings, budgets too small for early stopping, searches."""

from collections.abc import Iterable, Iterator

from imputune.artifacts.rivals_file import RivalResult
from imputune.artifacts.stage_output import differing_names
from imputune.artifacts.variant_file import VariantFile
from imputune.pipeline.project import IMPUTER_SECTIONS, Project, rival_settings, variant_settings
from imputune.protocol.variants import Variant, families_of
from imputune.runtime.console import counted
from imputune.settings.names import ImputerName, Mode
from imputune.training.search import brackets


def unfinished_notes(project: Project, imputer: ImputerName, known: Iterable[Variant], folds: int) -> Iterator[str]:
    """Name the variants of an imputer, not among the known ones, of which only some folds are finished."""
    variants = [variant for family in families_of(imputer) for variant in family.variants(imputer)]
    finished = set(known)
    for variant in variants:
        folder = project.unfinished_variant_folder(variant)
        done = len(list(folder.glob("fold-*")))
        if done and variant not in finished:
            yield (
                f"{variant.label} is skipped: {done} of {folds} folds are finished. `imputune grid` with this variant "
                "trains the others"
            )


def settings_notes(project: Project, files: Iterable[VariantFile]) -> Iterator[str]:
    """Name the variants that were made with other settings than params.yaml now has, and what differs.

    Settings of the imputer's pretraining are not compared: a variant belongs to its imputer, whatever params.yaml says.
    Variants in which the same settings differ share a note.
    """
    differing = []
    for file in files:
        now = {
            name: value
            for name, value in variant_settings(project, file.variant).items()
            if name not in IMPUTER_SECTIONS
        }
        differing.append((file.variant.label, differing_names(file.settings, now)))
    yield from _differing_notes(differing, "variant")


def rival_settings_notes(project: Project, rivals: Iterable[RivalResult]) -> Iterator[str]:
    """Name the rivals that were made with other settings than params.yaml now has, as `settings_notes` does."""
    differing = [
        (each.rival.label, differing_names(each.settings, rival_settings(project, each.rival))) for each in rivals
    ]
    yield from _differing_notes(differing, "rival")


def _differing_notes(differing: Iterable[tuple[str, list[str]]], what: str) -> Iterator[str]:
    """Say which settings differ, given their names by label; labels with the same names share a note."""
    labels: dict[tuple[str, ...], list[str]] = {}
    for label, names in differing:
        if names:
            labels.setdefault(tuple(names), []).append(label)
    for settings, same in labels.items():
        which = same[0] if len(same) == 1 else f"{counted(len(same), what)} ({', '.join(same)})"
        yield f"{which}: these settings now differ in params.yaml: {', '.join(settings)}"


def protocol_notes(files: Iterable[VariantFile]) -> Iterator[str]:
    """Say where a budget of epochs was too small for patience to act, and what to know of each mode's searches."""
    neural = [file for file in files if file.variant.is_neural]
    for mode in ("frozen", "unfrozen"):
        ours = [file for file in neural if file.variant.mode == mode]
        if not ours:
            continue
        epochs = ours[0].number(f"budget.{mode}_epochs")
        patience = ours[0].number("finetune.patience")
        if epochs <= patience:
            yield (
                f"{mode} training had at most {epochs} epochs, and early stopping has a patience of {patience}. "
                "So it never stopped early, and schedule plateau may have kept its first learning rate. The best epoch "
                "was kept"
            )
        searched = [file for file in ours if file.variant.schedule == "optuna"]
        if searched:
            yield from _search_notes(mode, searched)


def _search_notes(mode: Mode, files: list[VariantFile]) -> Iterator[str]:
    first = files[0]
    trials = first.number("schedules.optuna.trials")
    startup = first.number("schedules.optuna.startup_trials")
    epochs = min(first.number("schedules.optuna.trial_epochs"), first.number(f"budget.{mode}_epochs"))
    searches = [fold for file in files for fold in file.folds if fold.trials]
    count = brackets(first.number("schedules.optuna.reduction_factor"), epochs)
    guided = max(0, trials - count * startup)
    yield (
        f"optuna, {mode}: each search had {trials} trials of at most {epochs} epochs. Such short trials favour high "
        f"learning rates. In each of the {count} Hyperband brackets the first {startup} trials are random, so about "
        f"{guided} of {trials} trials used earlier results. In {len(searches)} searches, "
        f"{sum(fold.pruned_trials for fold in searches)} of {sum(fold.trials for fold in searches)} trials were pruned"
    )
    if first.setting(f"schedules.optuna.{mode}_scope") == "first_fold" and len(first.folds) > 1:
        yield (
            f"optuna, {mode}: fold 0 searched the learning rate for all folds. Its trials used stays that the other "
            f"folds test on, so this learning rate depends on test stays ({mode}_scope: each_fold avoids this)"
        )
