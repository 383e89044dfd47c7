import json
import shlex
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import JsonValue

from imputune.artifacts.model_card import CardCohort, CardFact, CardRecalibration, ModelCard, parsed_card
from imputune.data.cohort import Variable
from imputune.data.raw.mimic3.variables import VARIABLES
from imputune.evaluation.calibration import CalibrationLine
from imputune.evaluation.card_scores import FoldLine, StaysScores, score_stays
from imputune.evaluation.subgroups import GroupScores
from imputune.protocol.division import Division
from imputune.reporting.card_events import evaluated, promoted, refused, replaced, restored, rolled_back
from imputune.reporting.card_history import HEADING, CardEvent, shortened, with_event
from imputune.reporting.model_card import HISTORY_ROOM, card_text, description_text, model_text

LIMIT = 5000
PERCENT: dict[str, JsonValue] = {"train": 0.64, "validation": 0.16, "test": 0.2}
COHORT = CardCohort(
    name="mimic3",
    cohort_hash="c" * 64,
    stays=20_000,
    outcomes=2_000,
    hours=48,
    extracted="2026-11-26",
    command="imputune extract mimic3",
    rules={"minimum age": "15", "first stay only": "True"},
    exclusions={"younger than 15": 12, "stay under 48 hours": 3_000},
)
SECTIONS = (
    "What it predicts, and for whom",
    "Cohort",
    "Inputs",
    "Scores on test stays by fold",
    "Calibration",
    "Subgroups",
    "Threshold",
    "Limits",
    "Lineage",
    "How to call it",
)


@pytest.fixture(scope="module")
def scores() -> StaysScores:
    """Scores of 4,000 stays with all subgroups."""
    generator = np.random.default_rng(0)
    risk_N = generator.beta(2, 9, 4000)
    static = pd.DataFrame(
        {
            "icu_type": generator.integers(1, 5, 4000),
            "gender": generator.integers(0, 2, 4000),
            "age_years": generator.integers(20, 90, 4000),
        }
    ).astype(np.float64)
    outcome_N = (generator.random(4000) < risk_N).astype(np.int8)
    return score_stays(outcome_N, risk_N, static, threshold=0.2, resamples=20, seed=0)


def card_of(scores: StaysScores | None, **changes: Any) -> ModelCard:
    """Return a card of a neural head on two variables, with five folds."""
    folds = tuple(
        FoldLine(
            fold=fold,
            stays=800,
            scores={
                **{"test_auc": 0.81 + fold / 100, "test_auprc": 0.5, "test_brier": 0.1},
                **{"test_calibration_error": 0.02, "test_calibration_slope": float("nan")},
            },
            intervals={"test_auc": (0.7, 0.9), "test_auprc": (0.4, 0.6), "test_brier": (0.08, 0.12)},
        )
        for fold in range(5)
    )
    fields: dict[str, Any] = {
        "model": "imputune-mortality-mimic3",
        "version": 3,
        "dataset": "mimic3",
        "imputer": "csai",
        "head": "mlp2",
        "input": "hidden+static",
        "variant": "csai/mlp2-frozen-hidden+static-plateau",
        "variables": (Variable("HR", "beats/min"), Variable("GCS", "")),
        "static": (
            CardFact(parameter="Age", unit="years", categories=()),
            CardFact(parameter="Gender", unit="", categories=(0, 1)),
        ),
        "cohort": COHORT,
        "folds": folds,
        "test": scores,
        "threshold": 0.21,
        "threshold_rule": "youden",
        "lineage": {"run_id": "r" * 32, "cohort_hash": "c" * 64, "commit": "d" * 40},
    }
    return ModelCard.model_validate(fields | changes)


def sections(text: str) -> list[str]:
    """Return the titles of a card's sections."""
    return [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]


def test_a_card_speaks_of_the_length_of_a_bin(scores) -> None:
    """A model of bins of four hours: nothing in its card, or in its model's description, is called hourly."""
    cohort = COHORT.model_copy(update={"hours": 24, "bin_hours": 4})
    head = card_of(scores, cohort=cohort)
    imputer = card_of(None, cohort=cohort, head="", input="", variant="", static=(), threshold=None)
    for card, text, line in (
        (head, card_text(head), "from the first 24 hours of a stay in intensive care, in bins of 4 hours. It is mlp2"),
        (head, card_text(head), "- mimic3: 20,000 stays of 24 hours in bins of 4"),
        (head, card_text(head), "- observed_cells: 4-hourly cells with a value, of 6 bins × 2 variables"),
        (head, model_text(head), "from the first 24 hours in intensive care, in bins of 4 hours."),
        (imputer, card_text(imputer), "It fills in the missing 4-hourly values of a stay's first 24 hours in"),
        (imputer, card_text(imputer), "a row for each bin of each variable, in the variable's unit; a bin of 4 hours"),
        (imputer, model_text(imputer), "Fills in missing 4-hourly values of the first 24 hours"),
    ):
        assert line in text, line
        assert " hourly" not in text, card
    assert "- observed_cells: hourly cells with a value, of 48 hours × 2 variables" in card_text(card_of(scores))


def test_a_card_says_what_each_number_is(scores) -> None:
    """Every section, and the numbers that were handed in, each with its words."""
    text = card_text(card_of(scores))
    assert text.startswith("# imputune-mortality-mimic3, version 3\n")
    assert sections(text) == list(SECTIONS)
    for line in (
        "It is mlp2 on CSAI, reading the hidden state and static facts (csai/mlp2-frozen-hidden+static-plateau); the "
        "risk is the mean of 5 fold models.",
        "- mimic3: 20,000 stays of 48 hours",
        "- outcome, in-hospital death: 2,000 stays (10.0%)",
        "- day of extraction: 2026-11-26",
        "- rule, minimum age: 15",
        "- left out: 12 younger than 15, 3,000 stay under 48 hours",
        "2 variables, as rows of time (HH:MM), parameter and value: HR (beats/min), GCS. Static facts: Age (years), "
        "Gender (0, 1).",
        "| 0 | 800 | 0.810 (0.700 to 0.900) | 0.500 (0.400 to 0.600) | 0.100 (0.080 to 0.120) | 0.020 |  |",
        "| mean |  | 0.830 ± 0.016 | 0.500 ± 0.000 | 0.100 ± 0.000 | 0.020 ± 0.000 |  |",
        "A stay counts as high risk if its risk is at least 0.210 (Youden's index on validation stays).",
        f"- hash of the data: {'c' * 64}",
        "$ imputune predict mimic3 --model 3 --records stay.csv",
        "$ mlflow models serve -m models:/imputune-mortality-mimic3/3 --env-manager local --port 5001",
    ):
        assert line in text, line
    every, worst = scores.all_stays, scores.worst_ranked
    assert f"the mean risk is {every.mean_risk:.1%}, and {every.outcome_rate:.1%} died" in text
    assert f"care: {worst.auc.value:.3f} ({worst.auc.low:.3f} to {worst.auc.high:.3f}), and" in text
    assert text.count("AUC and slope below differ from these means, because there risks of different") == 1
    assert "A group with fewer than 10 stays, 5 deaths or 5 survivors would be left out; there is none." in text
    rows = [line for line in text.splitlines() if line.startswith(("| ICU type", "| sex", "| age"))]
    assert len(rows) == len(scores.groups) - 1 == 10


def test_the_rule_of_small_groups_is_told_without_counts(scores) -> None:
    """A card with groups left out has the rule; a line without counts has an empty cell."""
    untold = scores.groups[1].model_copy(update={"stays": None, "events": None})
    fewer = scores.model_copy(update={"groups": (scores.groups[0], untold), "some_left_out": True})
    text = card_text(card_of(fewer))
    assert "fewer than 10 stays, 5 deaths or 5 survivors are left out. Counts are also hidden where the hidden" in text
    assert "| ICU type coronary care |  | " in text
    nobody = scores.model_copy(update={"groups": scores.groups[:1]})
    assert "ICU type, sex and age are not known. Nobody can say for whom it is worse." in card_text(card_of(nobody))


def planted(scores: StaysScores, **gaps: tuple[float, float, float]) -> StaysScores:
    """Return scores with an AUC of 0.5 in one subgroup, and these gaps by level; all other intervals have 0."""
    every, *others = scores.groups
    lines = []
    for line in others:
        value, low, high = gaps.get(line.level, (0.002, -0.1, 0.1))
        gap = line.gap.model_copy(update={"value": value, "low": low, "high": high})
        lines.append(line.model_copy(update={"gap": gap, "mean_risk": 0.2 + value, "outcome_rate": 0.2}))
    lower = lines[0].auc.model_copy(update={"value": 0.5, "low": 0.4, "high": 0.6})
    return scores.model_copy(update={"groups": (every, lines[0].model_copy(update={"auc": lower}), *lines[1:])})


def test_every_group_that_is_off_beyond_chance_is_named(scores) -> None:
    """All intervals without 0, by side, the furthest off first; an interval with 0 names none."""
    off = planted(scores, medical=(-0.05, -0.09, -0.01), female=(0.021, 0.001, 0.04), male=(-0.07, -0.1, -0.04))
    text = card_text(card_of(off))
    assert (
        "Beyond chance, its risks are too low for sex male (−7.0), ICU type medical (−5.0); too high for sex female "
        "(+2.1): mean risk minus outcome rate, in points."
    ) in text
    assert (
        "discrimination (AUC) is lowest for ICU type coronary care: 0.500 (0.400 to 0.600), and "
        f"{scores.all_stays.auc.value:.3f} for all stays (it is worse there)."
    ) in text
    description = description_text(card_of(off), LIMIT)
    assert "too low for sex male (−7.0), ICU type medical (−5.0); too high for sex female (+2.1)" in description
    text = card_text(card_of(planted(scores, medical=(-0.05, -0.11, 0.01))))
    assert "Beyond chance" not in text
    assert (
        "For no group shown is the mean risk off beyond chance. It is furthest off for ICU type medical: mean risk "
        "15.0%, and 20.0% died: 5.0 points too low (this may be chance)."
    ) in text


def test_the_first_line_of_a_description_tells_versions_apart(scores) -> None:
    """Head, input, cohort and mean test score; the table of versions shows this line."""
    boosted = {"head": "xgboost", "input": "summary+static", "imputer": ""}
    blend = {"head": "blend", "members": ("csai/a", "csai/b"), "variant": "csai/blend-frozen-members-none"}
    errors = tuple(FoldLine(fold=k, stays=9, scores={"test_mae_uniform": 0.4 + k / 10}) for k in range(3))
    cohort = COHORT.model_copy(update={"name": "other (set-s)", "rules": {"sets": "set-s"}})
    lines = {"calibration_slope": 1.2, "calibration_intercept": -0.3}
    recalibration = CardRecalibration(
        **{"source": 2, "cohort": cohort, "line": CalibrationLine(intercept=0.1, slope=1.0)},
        **{"before": lines, "after": lines, "scores": scores},
    )
    for changes, line in (
        ({}, "mlp2 · hidden+static · CSAI · frozen · plateau on mimic3: test AUC 0.830 ± 0.016"),
        (
            boosted | {"variant": "csai/xgboost-frozen-summary+static-none"},
            "xgboost · summary+static on mimic3: test AUC 0.830 ± 0.016",
        ),
        (blend, "blend of 2 variants on mimic3: test AUC 0.830 ± 0.016"),
        ({"head": "", "folds": errors}, "CSAI on mimic3: test MAE (uniform) 0.500 ± 0.100"),
        ({"folds": ()}, "mlp2 · hidden+static · CSAI · frozen · plateau on mimic3"),
    ):
        card = card_of(None, **changes)
        assert description_text(card, LIMIT).splitlines()[0] == line
        assert card_text(card).splitlines()[:3] == ["# imputune-mortality-mimic3, version 3", "", f"{line}."]
    fitted = description_text(card_of(None, recalibration=recalibration, **boosted, variant=""), LIMIT)
    assert fitted.startswith("xgboost · summary+static on mimic3, recalibrated on other (record set set-s): test AUC")
    assert "## Calibration\n\nThe line was fitted to the stays of other (record set set-s). So these scores " in fitted


def test_a_card_names_the_sources_record_sets_in_words() -> None:
    """Of several too; a cohort without sets keeps its name."""
    for sets, name in (("set-s", "mimic3 (set-s)"), ("set-a, set-b", "mimic3 (set-a-set-b)")):
        text = card_text(card_of(None, cohort=COHORT.model_copy(update={"name": name, "rules": {"sets": sets}})))
        assert f"- mimic3 (record set {sets}): 20,000 stays" in text
        assert f"- record sets of the source: {sets}\n" in text
        assert "rule, sets" not in text
    other = COHORT.model_copy(update={"name": "mimic3 (ward)", "rules": {"sets": "set-s"}})
    assert "- mimic3 (ward): 20,000 stays" in card_text(card_of(None, cohort=other))


def test_a_rule_of_the_threshold_is_told_in_words() -> None:
    """Youden's index, and a sensitivity with its number."""
    text = card_text(card_of(None, threshold_rule="sensitivity 0.8"))
    assert "at least 0.210 (a sensitivity of at least 0.8 on validation stays)." in text


def test_the_whole_card_explains_a_call(scores) -> None:
    """Static facts that the head reads are rows; curl, the answer's columns, and the champion beside the number."""
    text = card_text(card_of(scores))
    [command] = [line for line in text.splitlines() if line.startswith("$ curl")]
    sent = json.loads(shlex.split(command)[-1])["dataframe_split"]
    assert sent["columns"] == ["RecordID", "Time", "Parameter", "Value"]
    assert sent["data"] == [
        [1, "00:00", "Age", 63],
        [1, "00:00", "Gender", 1],
        [1, "00:10", "HR", 112],
        [1, "07:30", "GCS", 14],
    ]
    assert "`models:/imputune-mortality-mimic3@champion` is the champion." in text
    for column in ("risk", "risk_deviation", "high_risk", "observed_cells", "rows_ignored"):
        assert f"\n- {column}: " in text
    assert "of 48 hours × 2 variables" in text
    assert "its MLflow signature has no inputs, on purpose" in text
    plain = card_text(card_of(scores, static=(), variables=(Variable("Odd", ""),)))
    assert '"data": [[1, "00:10", "Odd", 80]]' in plain
    assert "Static facts" not in plain
    imputer = card_text(card_of(None, head="", folds=()))
    assert "- Observed: " in imputer
    assert "champion" not in imputer


def test_what_is_not_known_is_said() -> None:
    """A version without recorded scores, and one on data of which only the hash is known."""
    text = card_text(card_of(None, cohort=None, folds=(), threshold=None))
    assert text.count("Not recorded for this version.") == 4
    assert f"Only the hash of the data is known: {'c' * 64}." in text


def test_a_description_fits_and_has_every_section(scores) -> None:
    """With 35 variables all names stay; the table of subgroups is in the card alone. Room is left for the history."""
    variables = tuple(Variable(f"Variable{n}", "mmHg") for n in range(35))
    card = card_of(scores, variables=variables)
    text = description_text(card, LIMIT)
    assert len(text) <= LIMIT - HISTORY_ROOM < len(card_text(card))
    assert sections(text) == list(SECTIONS)
    assert "The whole card is model_card.md" in text
    assert "Variable34 (mmHg)" in text
    assert "| 4 | 800 | 0.850 (0.700 to 0.900) | 0.500 |" in text
    assert "Discrimination (AUC) is lowest for" in text
    assert text.index("Well calibrated (slope 0.95; 1 is best).") == text.index("## Calibration") + 16
    assert "| sex male |" not in text


def test_the_largest_card_fits_into_a_description(scores) -> None:
    """A recalibrated blend of seven on MIMIC-III's 89 variables, with long names and rules."""
    members = tuple(f"csai_more_stays/mlp2-unfrozen-hidden_both+static+summary-optuna{n}" for n in range(7))
    cohort = COHORT.model_copy(
        update={
            "rules": {f"rule of extraction {n}": "a value of some length" for n in range(20)},
            "exclusions": {f"reason of exclusion number {n}": 1000 + n for n in range(15)},
        }
    )
    lines = {"calibration_slope": 1.2, "calibration_intercept": -0.3}
    recalibration = CardRecalibration(
        **{"source": 2, "cohort": cohort, "line": CalibrationLine(intercept=-0.3, slope=1.2)},
        **{"before": lines, "after": lines, "scores": scores},
    )
    card = card_of(
        None,
        head="blend",
        variables=tuple(Variable(each.name, each.unit) for each in VARIABLES),
        members=members,
        cohort=cohort,
        recalibration=recalibration,
        lineage={"member_versions": "1,2,3,4,5,6,7", "also_cohorts": "a further cohort (12,345 stays), " * 20},
    )
    assert len(card_text(card)) > LIMIT
    text = description_text(card, LIMIT)
    assert len(text) <= LIMIT - HISTORY_ROOM
    assert "89 variables" in text
    assert {"Calibration", "Subgroups", "Limits", "How to call it"} <= {*sections(text)}
    for number in range(300):
        text = shortened(with_event(text, CardEvent(what=f"Evaluated on set {number}:", text="0.8 " * 40)), LIMIT)
        assert len(text) <= LIMIT
    assert "Evaluated on set 299:" in text
    assert "- Earlier lines are in model_card.md." in text


def test_an_imputers_card_has_errors_and_no_risk() -> None:
    """It says what it fills in, and its errors by fold; no threshold, and no imputune predict."""
    errors = {"test_mae_uniform": 0.4, "test_mre_uniform": 0.5}
    folds = tuple(FoldLine(fold=fold, stays=800, scores=errors) for fold in range(2))
    card = card_of(None, head="", input="", variant="", static=(), folds=folds, threshold=None)
    text = card_text(card)
    titles = ["What it does, and for whom", "Cohort", "Inputs", "Imputation errors by fold", "Limits", "Lineage"]
    assert sections(text) == [*titles, "How to call it"]
    assert "It is CSAI (arXiv 2312.16713); the answer is the mean of 2 fold models." in text
    assert "| 1 | 800 | 0.400 | 0.500 |" in text
    assert "| mean |  | 0.400 ± 0.000 | 0.500 ± 0.000 |" in text
    assert "imputune predict" not in text
    assert "champion" not in model_text(card)
    assert "`imputune promote` moves them" in model_text(card_of(None))


def test_the_numbers_are_read_back(scores) -> None:
    """model_card.json gives the same card, numbers that are not defined too; other texts give none."""
    card = card_of(scores)
    assert card_text(parsed_card(card.model_dump_json())) == card_text(card)
    assert parsed_card("{}") is None
    assert parsed_card("") is None


EVENT = CardEvent(what="Evaluated on set-b (1234):", text="AUC 0.8.")


def test_an_event_is_the_last_line_of_the_history_and_stands_there_once() -> None:
    """The rest of the card stays as it is; a later event with the same words takes the place of the earlier."""
    text = with_event("# Card\n\nOf a user's own words.\n", EVENT)
    assert text == f"# Card\n\nOf a user's own words.\n\n{HEADING}\n\n- **Evaluated on set-b (1234):** AUC 0.8.\n"
    other = CardEvent(what="Evaluated on set-b (1234567):", text="AUC 0.7.")
    both = with_event(text, other)
    assert both == f"{text}- **Evaluated on set-b (1234567):** AUC 0.7.\n"
    again = with_event(both, CardEvent(what=EVENT.what, text="AUC 0.9."))
    assert again.splitlines()[-2:] == [other.line, "- **Evaluated on set-b (1234):** AUC 0.9."]
    assert again.count(HEADING) == 1
    assert with_event("", EVENT) == f"{HEADING}\n\n{EVENT.line}\n"


def test_a_version_that_is_promoted_again_keeps_the_first_promotion() -> None:
    """A line is replaced only if no other change of the champion came between."""
    card, lines = "# Card\n", []
    for event in (
        promoted("Monday", 2, (), None),
        promoted("Tuesday", 2, (), None),
        rolled_back("Wednesday", 2),
        EVENT,
        promoted("Thursday", 2, (), None),
        EVENT,
        promoted("Friday", 2, (), None),
    ):
        card = with_event(card, event)
        lines.append(event.line)
    assert card.splitlines()[4:] == [lines[1], lines[2], lines[5], lines[6]]


def test_what_a_user_adds_below_the_history_stays() -> None:
    """Blank lines and words of the user's own are kept by a further line, and by a limit of length."""
    own = "\nSeen by the ward's board:\n\n\n- agreed\n- until May\n"
    card = with_event(f"# Card\n\n{HEADING}\n\n- **Event 0:** {'x' * 60}\n{own}", EVENT)
    assert card == f"# Card\n\n{HEADING}\n\n- **Event 0:** {'x' * 60}\n{EVENT.line}\n{own}"
    assert with_event(card, EVENT) == card
    cut = shortened(card, len(card) - 10)
    assert cut == f"# Card\n\n{HEADING}\n\n- Earlier lines are in model_card.md.\n{EVENT.line}\n{own}"
    assert shortened(card, len(own) + 30).endswith(own)
    below = f"{HEADING}\n\nOurs.\n"
    assert with_event(below, EVENT) == f"{HEADING}\n\n{EVENT.line}\n\nOurs.\n"
    assert with_event(HEADING, EVENT) == f"{HEADING}\n\n{EVENT.line}\n"
    remark = f"{HEADING}\n\n{EVENT.line}\n  (on the old ward)"
    later = CardEvent(what="Later:", text="x.")
    assert with_event(remark, later) == f"{remark}\n{later.line}\n"


def test_a_history_loses_its_oldest_lines_first() -> None:
    """What stands before it is kept; a line says where the others are; a text without history is cut."""
    text = "# Card\n"
    for number in range(6):
        text = with_event(text, CardEvent(what=f"Event {number}:", text="x" * 20))
    assert shortened(text, len(text)) == text
    cut = shortened(text, len(text) - 1)
    assert cut.splitlines()[:5] == ["# Card", "", HEADING, "", "- Earlier lines are in model_card.md."]
    assert "Event 5:" in cut
    assert "Event 0:" not in cut
    assert shortened(cut, len(cut)) == cut
    assert shortened(text, 20) == "# Card\n"
    assert shortened("y" * 30, 20) == "y" * 20


def test_events_have_other_words_for_other_things() -> None:
    """The words by which a line is replaced name the other version, or the cohort."""
    events = [
        promoted("now", None, (), None),
        promoted("now", 3, (), None),
        refused("now", None, ()),
        refused("now", 3, ()),
        replaced("now", 3),
        rolled_back("now", 3),
        restored("now", 3),
    ]
    assert len({event.what for event in events}) == len(events)


def test_too_few_deaths_have_no_scores_in_an_event() -> None:
    """An evaluation without scores says so, and what was not checked."""
    few = GroupScores(
        group="all", level="all", stays=40, events=4, scores={}, sensitivity=None, specificity=None, calibration=()
    )
    event = evaluated(
        "now",
        "ward",
        "ab" * 32,
        few,
        pretrained_on={"more": 7},
        unchecked=["the training cohort", "set-b"],
        outcome="in_hospital_death",
    )
    assert event.what == "Evaluated on ward (abababab):"
    assert event.text == (
        "now; 40 stays, 4 deaths (10.0%); too few deaths or survivors for scores; not external: 7 of these stays "
        "pretrained the imputer; shared stays not checked: the training cohort, set-b."
    )


def test_a_card_names_its_protocol(scores: StaysScores) -> None:
    """Overlapping test sets and an external test cohort are said; cross-validation tests every stay once."""
    seeds = Division.of({"protocol": "single_split", "fractions": PERCENT, "seeds": [1, 2]})
    text = card_text(card_of(scores, division=seeds))
    assert "Protocol: single split 64/16/20, 2 seeds." in text
    assert "Test sets of different seeds overlap" in text
    assert "Every stay is a test stay once" not in text
    assert "every stay trained some of them" not in text
    cohorts: list[JsonValue] = [["here", 800], ["there", 300]]
    outside = Division.of({"protocol": "external", "validation": 0.2, "seeds": [1], "cohorts": cohorts})
    text = card_text(card_of(scores, division=outside))
    assert "All test stays are of there, which trained nothing." in text
    assert "All test stays are of its training cohort" not in text
    for division in (None, Division(count=5)):
        assert "Every stay is a test stay once" in card_text(card_of(scores, division=division))
