import json

import pytest

from imputune.artifacts.imputer_file import ImputerFile
from imputune.artifacts.results_files import (
    Code,
    find_results_file,
    read_results_file,
    write_results_file,
)
from imputune.artifacts.stage_output import FoldRecord, MadeFrom, Origin, TrainingOutput
from imputune.artifacts.variant_file import VariantFile
from imputune.errors import UserError
from imputune.evaluation.metrics import ReliabilityPoint
from imputune.protocol.variants import make_variant
from imputune.runtime.recorder import Trial

ORIGIN = Origin(dataset="d", cohort_hash="c", folds_hash="f", variables=("HR", "pH"), stays=90, events=9, seed=4)
BUDGET = {"pretrain_epochs": 2, "frozen_epochs": 3}
TAGS = {"mlflow.source.git.commit": "abc", "imputune.git_dirty": "true", "imputune.device": "cuda", "other": "x"}


def imputer_output(**settings: object) -> TrainingOutput:
    """Return an imputer's output without folds."""
    made_from = MadeFrom.at(ORIGIN, stage="pretrain", imputer="csai", settings={"budget": BUDGET, **settings})
    return TrainingOutput(made_from=made_from, run_id="imputer run", folds=())


def variant_output(auc: float = 0.8) -> TrainingOutput:
    """Return a variant's output of one fold, whose search had one trial of two stopped."""
    trials = [
        Trial(number=number, learning_rate=0.1, state=state, validation_loss=1.0, curve=[])
        for number, state in enumerate(("complete", "pruned"))
    ]
    fold = FoldRecord(
        fold=0,
        scores={"test_auc": auc, "a_later_score": 0.5},
        best_epoch=1,
        seconds=2.5,
        history=[{"train_loss": 1.0}] * 3,
        imputation=[],
        learning_rate=0.1,
        trials=trials,
    )
    settings = {"budget": {"frozen_epochs": 3}, "finetune": {"patience": 5}}
    variant = make_variant("mlp2", schedule="optuna")
    made_from = MadeFrom.at(
        ORIGIN, stage="finetune", imputer="csai", imputer_run_id="imputer run", variant=variant, settings=settings
    )
    return TrainingOutput(made_from=made_from, run_id="run", num_parameters=7, trainable_parameters=7, folds=(fold,))


def points(stays: int) -> list[ReliabilityPoint]:
    """Return a calibration curve of ten groups of so many stays."""
    return [ReliabilityPoint(risk=0.1, outcome_rate=0.2, stays=stays)] * 10


def test_a_file_comes_back_as_it_was(tmp_path):
    """All scores, whatever their names, NaN too; the counts of the search; settings by dotted names."""
    file = VariantFile.of(variant_output(float("nan")), imputer_output(), points(9), Code.of(TAGS, version="1.0"))
    write_results_file(tmp_path / "new/file.json", file)
    found = read_results_file(tmp_path / "new/file.json", VariantFile)
    assert found.model_dump_json() == file.model_dump_json()
    [fold] = found.folds
    assert (str(fold.scores["test_auc"]), fold.scores["a_later_score"]) == ("nan", 0.5)
    assert (fold.epochs, fold.trials, fold.pruned_trials) == (3, 2, 1)
    assert found.number("finetune.patience") == 5
    assert (found.variables, found.imputer_settings) == (2, {"budget": {"pretrain_epochs": 2}})
    assert found.code == Code(version="1.0", commit="abc", changed=True, device="cuda")
    with pytest.raises(KeyError):
        found.setting("finetune.patience.more")
    with pytest.raises(TypeError, match="must be a whole number"):
        found.number("finetune")


@pytest.mark.parametrize(("stays", "kept"), [(4, 0), (5, 10)])
def test_small_groups_of_stays_are_left_out(stays, kept):
    """A calibration curve whose groups have fewer than five stays tells of single stays, and is not written."""
    assert len(VariantFile.of(variant_output(), imputer_output(), points(stays), Code()).calibration) == kept


def test_an_imputer_is_known_by_its_data_and_settings():
    """Pretrained in another run, or with another budget for heads, it is the same; with other settings it is not."""
    file = VariantFile.of(variant_output(), imputer_output(), [], Code())
    same = ImputerFile.of(imputer_output(), Code()).model_copy(update={"run_id": "another", "folds": (1,)})
    assert file.is_on(same)
    assert not file.is_on(same.model_copy(update={"folds": (1, 2)}))
    assert not file.is_on(same.model_copy(update={"imputer": "brits"}))
    for key, value in (("cohort_hash", "x"), ("folds_hash", "x"), ("seed", 5), ("settings", {})):
        assert not file.is_on(same.model_copy(update={key: value}))
    assert file.tells_of(variant_output(), imputer_output())
    assert not file.tells_of(variant_output(), imputer_output(csai={"hidden_size": 4}))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is broken"),
        ("[]", "is broken"),
        ('{"format": 2}', "is of another version of imputune"),
        ('{"format": 1, "head": "mlp9"}', "is broken, or of another version of imputune"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, text, told):
    """Broken, of another format, or with unknown words: one line with the path; `find_results_file` gives None."""
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_results_file(path, VariantFile)
    assert str(error.value) == f"{path} {told}"
    assert find_results_file(path, VariantFile) is None
    assert find_results_file(tmp_path / "missing.json", ImputerFile) is None


def test_the_format_is_written(tmp_path):
    """A reader can tell the format without knowing the fields."""
    write_results_file(tmp_path / "file.json", ImputerFile.of(imputer_output(), Code()))
    assert json.loads((tmp_path / "file.json").read_text())["format"] == 1
