import pytest

from imputune.protocol.division import Division
from imputune.settings.fold_sections import External, Folds, Fractions, SingleSplit

TENTHS = Fractions(train=0.8, validation=0.1, test=0.1)


def test_cross_validation_by_value() -> None:
    """Of five folds one tests and three train; of three, one each. Earlier results say the count alone."""
    division = Division.of({"count": 5})
    assert division == Division.of(Folds(count=5).in_effect)
    assert (division.label, division.folder, division.splits) == ("cross-validation, 5 folds", "", 5)
    assert division.test_to_train == 1 / 3
    assert Division.of({"count": 3}).test_to_train == 1
    assert division.tests_stays_once


def test_single_split_by_value() -> None:
    """The ratio of test to training stays is that of the fractions; several seeds test a stay several times."""
    folds = Folds(count=5, protocol="single_split", single_split=SingleSplit(seeds=(4, 9)))
    division = Division.of(folds.in_effect)
    assert (division.label, division.folder) == ("single split 64/16/20, 2 seeds", "single_split-64-16-20")
    assert (division.splits, division.test_to_train) == (2, pytest.approx(0.2 / 0.64))
    assert not division.tests_stays_once
    assert "Test sets of different seeds overlap" in division.sentences
    assert "(seeds: 4, 9)" in division.sentences
    tenths = Division.of({**folds.in_effect, "fractions": TENTHS.model_dump(), "seeds": [4]})
    assert (tenths.label, tenths.test_to_train) == ("single split 80/10/10, 1 seed", pytest.approx(1 / 8))
    assert tenths.tests_stays_once
    assert "overlap" not in tenths.sentences
    assert "no p-value" in tenths.sentences


def test_external_by_value() -> None:
    """The ratio comes from the sizes of both cohorts: 300 test stays over 0.75 of 800."""
    folds = Folds(count=5, protocol="external", external=External(validation=0.25, seeds=(1, 2, 3)))
    division = Division.of(folds.in_effect | {"cohorts": [["here", 800], ["there", 300]]})
    assert division.label == "external, trained on here, tested on there, 3 seeds"
    assert (division.folder, division.test_to_train) == ("external", 0.5)
    assert "same test stays" in division.sentences
