"""Notes of a comparison: unfinished variants, changed settings, budgets too small for early stopping, searches."""

from collections.abc import Iterable, Iterator

from imputune.artifacts.stage_output import TrainingOutput
from imputune.pipeline.collected import Collected
from imputune.pipeline.project import variant_settings
from imputune.protocol.variants import PROTOCOL
from imputune.settings.names import Mode
from imputune.training.search import brackets


def unfinished_notes(found: Collected) -> Iterator[str]:
    """Name the variants with some folds missing."""
    folds = len(found.imputer.folds)
    for variant in (variant for variant in PROTOCOL if variant not in found.rows and variant.imputer == found.name):
        folder = found.project.unfinished_folder / f"finetune-{variant.imputer}-{variant.name}"
        done = len(list(folder.glob("fold-*")))
        if done:
            yield (
                f"{variant.label} is skipped: {done} of {folds} folds are finished. `imputune grid` with this variant "
                "trains the others"
            )


def settings_notes(found: Collected) -> Iterator[str]:
    """Name the variants that were made with other settings than params.yaml now has, and what differs."""
    now = found.project.with_imputer(found.imputer.made_from.settings)
    for variant, output in found.outputs.items():
        made_now = output.made_from.model_copy(update={"settings": variant_settings(now, variant)})
        if names := output.made_from.differences(made_now):
            yield f"{variant.label}: these settings now differ in params.yaml: {', '.join(names)}"


def protocol_notes(outputs: Iterable[TrainingOutput]) -> Iterator[str]:
    """Say where a budget of epochs was too small for patience to act, and what to know of each mode's searches."""
    neural = [output for output in outputs if output.variant.is_neural]
    for mode in ("frozen", "unfrozen"):
        ours = [output for output in neural if output.variant.mode == mode]
        if not ours:
            continue
        epochs = ours[0].made_from.number(f"budget.{mode}_epochs")
        patience = ours[0].made_from.number("finetune.patience")
        if epochs <= patience:
            yield (
                f"{mode} training had at most {epochs} epochs, and early stopping has a patience of {patience}. "
                "So it never stopped early, and schedule plateau may have kept its first learning rate. The best epoch "
                "was kept"
            )
        searched = [output for output in ours if output.variant.schedule == "optuna"]
        if searched:
            yield from _search_notes(mode, searched)


def _search_notes(mode: Mode, outputs: list[TrainingOutput]) -> Iterator[str]:
    made_from = outputs[0].made_from
    trials = made_from.number("schedules.optuna.trials")
    startup = made_from.number("schedules.optuna.startup_trials")
    epochs = min(made_from.number("schedules.optuna.trial_epochs"), made_from.number(f"budget.{mode}_epochs"))
    searches = [fold.trials for output in outputs for fold in output.folds if fold.trials]
    pruned = sum(trial.state == "pruned" for search in searches for trial in search)
    count = brackets(made_from.number("schedules.optuna.reduction_factor"), epochs)
    guided = max(0, trials - count * startup)
    yield (
        f"optuna, {mode}: each search had {trials} trials of at most {epochs} epochs. Such short trials favour high "
        f"learning rates. In each of the {count} Hyperband brackets the first {startup} trials are random, so about "
        f"{guided} of {trials} trials used earlier results. In {len(searches)} searches, {pruned} of "
        f"{sum(map(len, searches))} trials were pruned"
    )
    if made_from.setting(f"schedules.optuna.{mode}_scope") == "first_fold":
        yield (
            f"optuna, {mode}: fold 0 searched the learning rate for all folds. Its trials used stays that the other "
            f"folds test on, so this learning rate depends on test stays ({mode}_scope: each_fold avoids this)"
        )
