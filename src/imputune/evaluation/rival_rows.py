"""Rivals beside small heads: scores over folds, cost, and paired tests against the best small head."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Literal, get_args

from imputune.evaluation.ablation import BLEND, Gain
from imputune.evaluation.rows import Score, Spread, VariantRow
from imputune.evaluation.significance import corrected_t_interval, corrected_t_test, holm
from imputune.evaluation.stored import Stored
from imputune.protocol.imputers import DEFAULT_IMPUTER
from imputune.protocol.rival_choice import RIVALS
from imputune.protocol.rivals import SECONDS_FOR_1000, Rival
from imputune.settings.names import NeuralHead

SHOWN_SCORES: tuple[Score, ...] = ("validation_auc", "test_auc", "test_auprc", "test_calibration_error")
Part = Literal["frozen head", "unfrozen head", "head with static", "blend", "rival"]


class RivalScores(Stored):
    """What is known of a rival: the scores of each scored fold by name, and why the others have none.

    num_parameters: its trainable ones. seconds: of the training of all folds that are there. failures: by fold.
    """

    rival: Rival
    num_parameters: int | None
    seconds: float
    scores: dict[int, dict[str, float]]
    failures: dict[int, str]


class HeadCost(Stored):
    """What our heads cost beside their own training; None where it is unknown.

    imputer_parameters: of CSAI. pretraining_seconds: of CSAI, all folds together. seconds_for_1000_stays: for the risks
    of mlp2 on CSAI.
    """

    imputer_parameters: int | None = None
    pretraining_seconds: float = 0.0
    seconds_for_1000_stays: float | None = None


class CompetitorRow(Stored):
    """A rival or one of our heads: scores as mean and deviation over folds, cost, and its lead.

    num_parameters: all that a risk is computed from, CSAI included; None where unknown. seconds: of training, CSAI's
    pretraining included; None for a blend, whose members are trained apart. folds: the number of scored folds. failure:
    why the first other fold has no score, "" if none failed. quoted_auc: of the literature, by another protocol. lead:
    test AUC minus that of the best small head, with p adjusted for the number of rivals; None for our heads, while
    folds are missing, and of a single split, where there is no interval.
    """

    part: Part
    label: str
    input: str
    num_parameters: int | None
    seconds: float | None
    seconds_for_1000_stays: float | None
    scores: dict[Score, tuple[float, float]]
    folds: int
    failure: str = ""
    quoted_auc: float | None = None
    lead: Gain | None = None


class RivalComparison(Stored):
    """Our best heads and all rivals.

    reference: the best small head, chosen by validation AUC. heads: our heads, the reference among them. rivals: the
    best validation AUC first, those without a score last.
    """

    reference: CompetitorRow
    heads: tuple[CompetitorRow, ...]
    rivals: tuple[CompetitorRow, ...]

    @property
    def best_rival(self) -> CompetitorRow | None:
        """The rival with the best validation AUC among those with all folds."""
        return next((row for row in self.rivals if self.has_all_folds(row)), None)

    def has_all_folds(self, row: CompetitorRow) -> bool:
        """Say whether a rival was scored on every fold that the best small head was scored on."""
        return row.folds == self.reference.folds

    def difference(self, row: CompetitorRow) -> float:
        """Return the mean test AUC of a rival with all folds minus that of the best small head."""
        if row.lead is not None:
            return row.lead.mean
        return row.scores["test_auc"][0] - self.reference.scores["test_auc"][0]


def compare_rivals(
    rows: Sequence[VariantRow],
    rivals: Sequence[RivalScores],
    test_to_train: float,
    *,
    cost: HeadCost,
    references: Mapping[str, float],
) -> RivalComparison | None:
    """Return our heads beside the rivals; None without a rival, or without a neural head on CSAI.

    Our heads are neural heads on CSAI: the best frozen and the best unfrozen one of the paper's protocol, and the best
    that also reads static facts; and the blend. All are chosen by validation AUC, and so is the best small head, among
    the neural ones. The test AUC of a rival with all folds is compared with its by `corrected_t_test`. references: the
    test AUCs that are quoted of other protocols, by the names of `published.REFERENCES`.
    """
    ours = dict(_our_best(rows))
    small = {part: row for part, row in ours.items() if part != "blend"}
    if not rivals or not small:
        return None
    best = max(small, key=lambda part: small[part].val_auc_mean)
    heads = {part: _head_row(part, row, cost) for part, row in ours.items()}
    leads = _leads(small[best].by_fold("test_auc"), rivals, test_to_train)
    found = [_rival_row(each, leads.get(each.rival), references) for each in rivals]
    found.sort(key=lambda row: -row.scores["validation_auc"][0] if row.scores else 1.0)
    return RivalComparison(reference=heads[best], heads=tuple(heads.values()), rivals=tuple(found))


def _our_best(rows: Sequence[VariantRow]) -> Iterator[tuple[Part, VariantRow]]:
    """Yield the best of our heads by part, as far as there are some."""
    neural = [row for row in rows if row.imputer == DEFAULT_IMPUTER and row.head in get_args(NeuralHead)]
    chosen: dict[Part, list[VariantRow]] = {
        "frozen head": [row for row in neural if row.is_of_protocol and row.mode == "frozen"],
        "unfrozen head": [row for row in neural if row.is_of_protocol and row.mode == "unfrozen"],
        "head with static": [row for row in neural if "static" in row.input.split("+")],
        "blend": [row for row in rows if row.head == BLEND],
    }
    for part, candidates in chosen.items():
        if candidates:
            yield part, max(candidates, key=lambda row: row.val_auc_mean)


def _leads(ours: Mapping[int, float], rivals: Sequence[RivalScores], test_to_train: float) -> dict[Rival, Gain]:
    """Return the lead of each rival that has all folds, two at least, over our test AUC by fold."""
    tested = {
        each.rival: [each.scores[fold]["test_auc"] - auc for fold, auc in ours.items()]
        for each in rivals
        if set(each.scores) == set(ours) and len(ours) > 1
    }
    p_values = holm([corrected_t_test(differences, test_to_train) for differences in tested.values()])
    leads = {}
    for (rival, differences), p_value in zip(tested.items(), p_values, strict=True):
        low, high = corrected_t_interval(differences, test_to_train)
        leads[rival] = Gain(mean=fmean(differences), low=low, high=high, p_value=p_value, by_fold=tuple(differences))
    return leads


def _head_row(part: Part, row: VariantRow, cost: HeadCost) -> CompetitorRow:
    known = row.num_parameters is not None and cost.imputer_parameters is not None
    return CompetitorRow(
        part=part,
        label=row.name,
        input=row.input,
        num_parameters=(row.num_parameters or 0) + (cost.imputer_parameters or 0) if known else None,
        seconds=None if part == "blend" else row.seconds + cost.pretraining_seconds,
        seconds_for_1000_stays=None if part == "blend" else cost.seconds_for_1000_stays,
        scores={name: Spread.of([*row.by_fold(name).values()]) for name in SHOWN_SCORES},
        folds=len(row.folds),
    )


def _rival_row(found: RivalScores, lead: Gain | None, references: Mapping[str, float]) -> CompetitorRow:
    kind, folds = RIVALS[found.rival.name], [*found.scores.values()]
    return CompetitorRow(
        part="rival",
        label=kind.label,
        input=found.rival.input,
        num_parameters=found.num_parameters,
        seconds=found.seconds,
        seconds_for_1000_stays=fmean(fold[SECONDS_FOR_1000] for fold in folds) if folds else None,
        scores={name: Spread.of([fold[name] for fold in folds]) for name in SHOWN_SCORES} if folds else {},
        folds=len(folds),
        failure=next(iter(found.failures.values()), ""),
        quoted_auc=references.get(kind.reference),
        lead=lead,
    )
