import math

import pytest

from example_results import imputer_comparison
from imputune.evaluation.ablation import Gain
from imputune.evaluation.comparison import VariantComparison
from imputune.evaluation.rival_rows import CompetitorRow, RivalComparison
from imputune.protocol.division import Division
from imputune.reporting.comparison import imputer_answers, imputer_tables, variant_tables
from imputune.reporting.rival_tables import answer, rivals_table

HEAD = CompetitorRow(
    part="unfrozen head",
    label="mlp2-unfrozen-hidden-plateau",
    input="hidden",
    num_parameters=100_000,
    seconds=500.0,
    seconds_for_1000_stays=2.0,
    scores={"validation_auc": (0.85, 0.01), "test_auc": (0.84, 0.02)},
    folds=5,
)


def rival(lead: float | None, p_value: float = 0.2, **changed: object) -> CompetitorRow:
    """Return SeFT with this lead."""
    gain = None
    if lead is not None:
        gain = Gain(mean=lead, low=lead - 0.01, high=lead + 0.01, p_value=p_value, by_fold=(lead,) * 5)
    update = {
        **{"part": "rival", "label": "SeFT", "input": "raw", "lead": gain, "quoted_auc": 0.869},
        **{"num_parameters": 50_000, "seconds": 1250.0, "seconds_for_1000_stays": 3.0},
    }
    return HEAD.model_copy(update=update | changed)


def comparison(*rivals: CompetitorRow) -> RivalComparison:
    """Return the head beside some rivals."""
    return RivalComparison(reference=HEAD, heads=(HEAD,), rivals=rivals)


@pytest.mark.parametrize(
    ("lead", "p_value", "verdict"),
    [
        (-0.004, 0.7, "is not behind the best complex model, SeFT (raw)"),
        (0.006, 0.2, "comes close to the best complex model, SeFT (raw)"),
        (0.03, 0.0004, "does not come close to the best complex model, SeFT (raw)"),
    ],
)
def test_a_sentence_says_whether_a_small_head_comes_close(lead: float, p_value: float, verdict: str) -> None:
    """With the difference, its interval and p, and what the complex model costs."""
    said = answer(comparison(rival(lead, p_value)))
    assert said.startswith(f"A simple head on CSAI {verdict}: the test AUC of the complex model minus the head's is ")
    assert said.endswith(
        "The complex model takes 0.5 times the parameters, 2.5 times the training time and 1.5 times the time for a "
        "risk."
    )
    assert ("p < 0.001, significant" in said) == (p_value < 0.001)


def test_the_difference_stands_with_its_interval() -> None:
    """Signs are shown, as in the other tables."""
    assert "is +0.006 (−0.004 to +0.016), p = 0.200, not significant." in answer(comparison(rival(0.006)))


def test_one_split_has_a_difference_and_no_interval() -> None:
    """The verdict stands; the sentence says why it has no p-value."""
    scores = {"validation_auc": (0.86, math.nan), "test_auc": (0.846, math.nan)}
    one = rival(None, folds=1, scores=scores)
    head = HEAD.model_copy(update={"folds": 1})
    found = RivalComparison(reference=head, heads=(head,), rivals=(one,))
    said = answer(found)
    assert said.startswith("A simple head on CSAI comes close to the best complex model, SeFT (raw): ")
    assert "is +0.006, on one split, which gives no interval and no p-value. The complex model takes" in said
    assert rivals_table(found).lines[0][-3:] == ("", "", "")
    assert rivals_table(found).lines[1][-3:] == ("+0.006", "", "0.869")


def test_small_costs_have_two_digits() -> None:
    """Nothing costs 0.0 times as much."""
    said = answer(comparison(rival(0.0, num_parameters=1_234)))
    assert "The complex model takes 0.012 times the parameters, 2.5 times the training time" in said


def test_unknown_costs_are_left_out() -> None:
    """A head whose imputer's size is unknown is compared by time alone."""
    unknown = rival(0.0, num_parameters=None, seconds_for_1000_stays=None)
    assert answer(comparison(unknown)).endswith("The complex model takes 2.5 times the training time.")


def test_a_failure_and_missing_folds_are_shown() -> None:
    """A rival that failed stands in the table with the reason; without a whole rival there is no verdict."""
    failed = rival(None, folds=0, scores={}, failure="training of fold 0 diverged")
    found = comparison(failed)
    table = rivals_table(found)
    assert table.lines[1][:6] == ("rival", "SeFT", "raw", "0; failed: training of fold 0 diverged", "", "")
    assert table.lines[1][-3:] == ("", "", "0.869")
    assert table.remark.startswith("No rival has all folds yet")


def test_lines_have_as_many_texts_as_the_header() -> None:
    """Heads and rivals alike."""
    table = rivals_table(comparison(rival(0.01)))
    assert {len(line) for line in table.lines} == {len(table.header)}
    assert dict(zip(table.header, table.lines[0], strict=True))["params"] == "100,000"


def test_pages_and_results_have_rivals_where_some_were_trained() -> None:
    """Both comparisons show the table; the one of imputers repeats the sentence, and its page has a section."""
    found, title = comparison(rival(0.01)), "Complex models on the same folds"
    plain = imputer_comparison()
    told = plain.model_copy(update={"rivals": found})
    assert answer(found) in imputer_answers(told)
    assert title in [table.title for table in imputer_tables(told)]
    assert title not in [table.title for table in imputer_tables(plain)]
    assert "rivals" in told.as_json(())
    assert "rivals" not in plain.as_json(())
    variants = VariantComparison(
        dataset="synthetic",
        stays=90,
        events=30,
        cohort_hash="",
        division=Division(count=5),
        rows=(),
        imputers=(),
        notes=(),
    )
    shown = variants.model_copy(update={"rivals": found})
    assert title in [table.title for table in variant_tables(shown)]
    assert "rivals" in shown.as_json()
    assert "rivals" not in variants.as_json()
