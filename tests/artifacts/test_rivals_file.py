from pathlib import Path

import pytest

from imputune.artifacts.results_files import Code
from imputune.artifacts.rivals_file import (
    RivalFold,
    RivalResult,
    RivalsFile,
    rates_tried,
    read_rivals_file,
    write_rivals_file,
)
from imputune.artifacts.stage_output import FoldRecord
from imputune.errors import UserError
from imputune.protocol.rivals import Rival
from imputune.runtime.recorder import Trial

FILE = RivalsFile(
    dataset="synthetic",
    cohort_hash="cohort",
    folds_hash="folds",
    variables=4,
    stays=90,
    events=30,
    outcome="in_hospital_death",
    outcome_hash="",
    seed=1,
)


def result(name: str = "seft", folds: tuple[int, ...] = (0,), auc: float = 0.8, epochs: int = 60) -> RivalResult:
    """Return a rival with these folds."""
    scored = [RivalFold(fold=fold, scores={"test_auc": auc}, best_epoch=1, epochs=2, seconds=3.0) for fold in folds]
    return RivalResult(
        rival=Rival.model_validate({"name": name, "input": "raw"}),
        settings={"rivals": {"epochs": epochs}},
        num_parameters=5,
        learning_rate=0.01,
        rates={"0.01": 0.7, "0.1": None},
        folds=tuple(scored),
        run_id="",
        code=Code(),
    )


def test_a_file_is_made_in_parts(tmp_path: Path) -> None:
    """Rivals stand in the catalogue's order; folds of another machine with the same settings stay."""
    file = FILE.with_result(result("mtan", (0,))).with_result(result("seft", (0, 1)))
    file = file.with_result(result("seft", (1, 2), auc=0.9))
    write_rivals_file(tmp_path / "rivals.json", file)
    found = read_rivals_file(tmp_path / "rivals.json")
    assert found == file
    assert [each.rival.name for each in found.rivals] == ["seft", "mtan"]
    assert [(fold.fold, fold.scores["test_auc"]) for fold in found.rivals[0].folds] == [(0, 0.8), (1, 0.9), (2, 0.9)]


def test_folds_of_other_settings_are_replaced() -> None:
    """They are another model's."""
    file = FILE.with_result(result(folds=(0, 1))).with_result(result(folds=(0,), epochs=30))
    assert [fold.fold for fold in file.rivals[0].folds] == [0]


@pytest.mark.parametrize("changed", [{"cohort_hash": "x"}, {"folds_hash": "x"}, {"seed": 2}, {"outcome_hash": "x"}])
def test_files_of_other_data_are_told_apart(changed: dict[str, object]) -> None:
    """Cohort, folds, seed and labels."""
    assert FILE.is_of_data(FILE.with_result(result()))
    assert not FILE.is_of_data(FILE.model_copy(update=changed))


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}'])
def test_a_broken_file_is_one_line(tmp_path: Path, text: str) -> None:
    """So is one of another version."""
    (tmp_path / "rivals.json").write_text(text)
    with pytest.raises(UserError, match=r"rivals\.json is broken, or of another version of imputune"):
        read_rivals_file(tmp_path / "rivals.json")


def test_rates_are_told_by_their_best_validation_auc() -> None:
    """None where training diverged."""
    curve = [{"validation_auc": 0.6}, {"validation_auc": 0.7}]
    trials = [
        Trial(number=0, learning_rate=0.001, state="complete", validation_loss=0.5, curve=curve),
        Trial(number=1, learning_rate=0.1, state="pruned", validation_loss=float("inf"), curve=[]),
    ]
    fold = FoldRecord(
        **{"fold": 0, "scores": {}, "best_epoch": 0, "seconds": 1.0, "history": [], "imputation": []},
        **{"learning_rate": 0.001, "trials": trials},
    )
    assert rates_tried([fold]) == {"0.001": 0.7, "0.1": None}
