"""Texts on another outcome than in-hospital death speak of it by its name, and of nobody's death."""

import re

import numpy as np
import pandas as pd
import pytest

from example_results import imputer_comparison, matrix_rows, ranked_imputer, variant_row
from imputune.artifacts.model_card import CardCohort, ModelCard
from imputune.data.cohort import Variable
from imputune.evaluation.card_scores import score_stays
from imputune.evaluation.comparison import VariantComparison
from imputune.evaluation.subgroups import GroupScores
from imputune.pipeline.evaluate import too_few
from imputune.protocol.division import Division
from imputune.protocol.outcome_words import LABELS, outcome_words
from imputune.protocol.outcomes import EXTRACTED
from imputune.reporting.card_events import evaluated
from imputune.reporting.comparison import imputer_tables, imputer_title, variant_latex, variant_markdown
from imputune.reporting.figures import calibration_figure
from imputune.reporting.imputer_figures import risk_figure
from imputune.reporting.model_card import card_text, model_text

OUTCOME = "readmission_within_30_days"
NO_WORDS = re.compile(r"\b(died|dies?|deaths?|mortality|surviv\w+)\b", re.IGNORECASE)


def card(risk_N: np.ndarray, outcome_N: np.ndarray) -> ModelCard:
    """Return the card of a version that predicts readmission, with these test stays."""
    static = pd.DataFrame({"gender": np.arange(len(risk_N)) % 2}).astype(np.float64)
    return ModelCard(
        model=f"imputune-{OUTCOME}-mimic3",
        version=1,
        dataset="mimic3",
        outcome=OUTCOME,
        imputer="csai",
        head="mlp2",
        input="hidden",
        variant="csai/mlp2-frozen-hidden-plateau",
        variables=(Variable("HR", "beats/min"),),
        cohort=CardCohort(
            name="mimic3",
            cohort_hash="c" * 64,
            stays=1000,
            outcomes=80,
            outcome=OUTCOME,
            labelled=800,
            hours=48,
            extracted="2026-11-26",
            command="imputune extract mimic3",
            rules={},
            exclusions={},
        ),
        test=score_stays(outcome_N, risk_N, static, threshold=0.3, resamples=20, seed=0),
        threshold=0.3,
        threshold_rule="youden",
        lineage={},
    )


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0, -1.0])
def test_a_model_card_names_its_outcome(power: float) -> None:
    """Also where risks are too extreme, too moderate, or fall where they should rise."""
    generator = np.random.default_rng(1)
    risk_N = generator.beta(2, 4, 2000)
    odds_N = (risk_N / (1 - risk_N)) ** power
    found = card(risk_N, (generator.random(2000) < odds_N / (1 + odds_N)).astype(np.int8))
    text = card_text(found) + model_text(found)
    assert "It predicts the risk of readmission within 30 days, a number from 0 to 1" in text
    assert "outcome, readmission within 30 days: 80 stays (10.0% of 800 with a label)" in text
    assert f"imputune predict mimic3 --outcome {OUTCOME} --model 1" in text
    assert not NO_WORDS.search(text), NO_WORDS.findall(text)


def test_comparisons_name_their_outcome_and_quote_no_paper() -> None:
    """The paper's figures on PhysioNet 2012 and its claims are on in-hospital death."""
    names = ("mlp2-frozen-hidden-plateau", "mlp2-unfrozen-hidden-plateau", "mlp5-frozen-hidden-plateau")
    comparison = VariantComparison(
        dataset="physionet2012",
        outcome=OUTCOME,
        stays=900,
        events=90,
        cohort_hash="abc",
        division=Division(count=5),
        rows=tuple(variant_row(name, [0.84, 0.86], "") for name in names),
        imputers=(),
        notes=(),
    )
    for text in (variant_markdown(comparison), variant_latex(comparison)):
        assert "physionet2012: 900 stays, 90 events (readmission within 30 days)" in text
        assert not NO_WORDS.search(text), NO_WORDS.findall(text)
        assert "The paper's claims" not in text
    assert (comparison.references, comparison.verdicts) == ({}, ())
    rows = matrix_rows(lambda i, c, f: 0.7 + 0.1 * c + i * f / 7000)
    matrix = imputer_comparison(rows, [ranked_imputer("csai", 0.2, 1 / 3)]).model_copy(update={"outcome": OUTCOME})
    texts = [imputer_title(matrix), *(f"{table.title} {table.remark}" for table in imputer_tables(matrix))]
    assert "154 events (readmission within 30 days)" in texts[0]
    assert any(text.count("AUC of readmission within 30 days") for text in texts)
    assert not NO_WORDS.search(" ".join(texts))


def test_figures_and_events_of_a_card_have_the_outcomes_words() -> None:
    """The axis of calibration, and what evaluate adds to a card."""
    risks = np.array([1, 0, 1, 0] * 30), np.linspace(0, 1, 120)
    [_, _, calibration] = risk_figure({"model": risks}, OUTCOME).axes
    assert calibration.get_ylabel() == "share that had the outcome"
    drawn = calibration_figure([variant_row("mlp2-frozen-hidden-plateau", [0.8])], OUTCOME)
    assert drawn is None or "died" not in drawn.axes[0].get_ylabel()
    scores = GroupScores(
        group="all", level="all", stays=40, events=4, scores={}, sensitivity=None, specificity=None, calibration=()
    )
    event = evaluated("now", "other", "c" * 64, scores, pretrained_on={}, unchecked=[], outcome=OUTCOME)
    assert "40 stays, 4 events (10.0%); too few events or non-events for scores" in event.text
    assert "these stays have 4 events and 36 non-events" in too_few(scores, OUTCOME)
    assert "these stays have 4 deaths and 36 survivors" in too_few(scores, "in_hospital_death")


def test_every_extracted_outcome_has_a_label() -> None:
    """An outcome of a user's own is called by its name."""
    assert set(LABELS) == set(EXTRACTED)
    assert outcome_words("sepsis_in_hospital").label == "sepsis in hospital"
    assert outcome_words("in_hospital_death").counted(1) == "1 death"
    assert outcome_words("sepsis").counted_without(1) == "1 non-event"
