import pytest

from imputune.artifacts.stage_output import MadeFrom, TrainingOutput, differing_names
from imputune.errors import UserError
from imputune.protocol.variants import make_variant

REMEDY = "run `imputune pretrain synthetic`"


def test_final_metrics_are_scores_best_epoch_and_seconds(make_fold):
    """A recorder gets them at the end of a fold, all as numbers."""
    assert make_fold().final_metrics == {"test_auc": 0.75, "best_epoch": 7.0, "seconds": 1.5}


def test_an_output_of_the_same_origin_passes(origin, made_from, tmp_path):
    """Equal data, folds and variables are no error."""
    origin.check(made_from, tmp_path, REMEDY)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"variables": ("HR", "pH")}, "other variables (2, the cohort has 3; differing: Temp)"),
        ({"variables": ("HR", "Temp", "GCS")}, "other variables (3, the cohort has 3; differing: GCS, pH)"),
        ({"variables": ("HR", "pH", "Temp")}, "other variables (3, the cohort has 3; differing: their order)"),
        ({"variables": tuple("gfedcba")}, "other variables (7, the cohort has 3; differing: HR, Temp, a, b, c)"),
        ({"cohort_hash": "data2"}, "other data than synthetic now has"),
        ({"folds_hash": "folds2"}, "other folds than synthetic now has"),
        ({"cohort_hash": "data2", "folds_hash": "folds2"}, "other data than synthetic now has"),
    ],
)
def test_an_output_of_another_origin_is_refused(origin, made_from, tmp_path, changed, message):
    """The line names the folder, what differs, and the remedy."""
    with pytest.raises(UserError) as caught:
        origin.check(made_from.model_copy(update=changed), tmp_path, REMEDY)
    assert str(caught.value).endswith(f"was trained on {message}: {REMEDY}")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_differences_are_named_by_their_place():
    """Missing and different values are named, nested ones too; values that only the found side has do not count."""
    wanted = {"seed": 1, "finetune": {"dropout": 0.3, "patience": 25}, "csai": {"hidden_size": 108}}
    found = {"seed": 1, "run_id": "x", "finetune": {"dropout": 0.2, "patience": 25}}
    assert differing_names(found, wanted) == ["finetune.dropout", "csai.hidden_size"]
    assert differing_names(wanted, wanted) == []


def test_differences_of_descriptions_name_settings_without_their_section(variant_made_from):
    """Data, run, variant and settings are compared; settings have the names of params.yaml."""
    other = variant_made_from.model_copy(
        update={
            "cohort_hash": "data2",
            "imputer_run_id": "run2",
            "variant": make_variant("gru"),
            "settings": {"finetune": {"dropout": 0.1, "patience": 25}},
        }
    )
    assert other.differences(variant_made_from) == [
        "cohort_hash",
        "imputer_run_id",
        "variant.head",
        "variant.input",
        "finetune.dropout",
    ]
    assert variant_made_from.differences(MadeFrom.model_validate(variant_made_from.model_dump(mode="json"))) == []


def test_an_output_made_before_a_setting_came_stays_valid(origin):
    """What an earlier version's description lacks counts as off: equal to 0 now, different from another value."""

    def described(**sections):
        return MadeFrom.at(origin, stage="finetune", imputer="csai", settings=sections)

    found = described(pretrain={"imputation_weight": 1.0}, finetune={"masking_rate": 0.3})
    later = {"missingness_weight": 0.0, "variable_masking": 0.0}
    off = described(
        pretrain={"imputation_weight": 1.0, **later}, finetune={"masking_rate": 0.3, "variable_masking": 0.0}
    )
    on = described(
        pretrain={"imputation_weight": 1.0, **later, "missingness_weight": 0.5},
        finetune={"masking_rate": 0.3, "variable_masking": 0.1},
    )
    assert found.differences(off) == off.differences(found) == []
    assert found.differences(on) == on.differences(found)
    assert found.differences(on) == ["pretrain.missingness_weight", "finetune.variable_masking"]
    frozen = described(pretrain={"imputation_weight": 1.0}, finetune={"dropout": 0.3})
    assert frozen.settings["finetune"] == {"dropout": 0.3}


def test_settings_are_read_by_their_dotted_names(made_from):
    """A whole number is returned; another kind of value and an unknown name are errors."""
    assert made_from.number("csai.hidden_size") == 8
    assert made_from.setting("csai") == {"hidden_size": 8}
    with pytest.raises(TypeError, match="setting csai must be a whole number"):
        made_from.number("csai")
    for name in ("csai.channels", "seed.more", "finetune"):
        with pytest.raises(KeyError):
            made_from.setting(name)


def test_only_fine_tuning_has_a_variant(made_from, variant_made_from, make_fold):
    """An imputer's output has none; curves are given by fold."""
    folds = (make_fold(0, history=[{"loss": 1.0}]).record, make_fold(3).record)
    finetuned, pretrained = (
        TrainingOutput(made_from=each, run_id="run7", folds=folds) for each in (variant_made_from, made_from)
    )
    assert finetuned.variant == make_variant("mlp2")
    assert finetuned.histories == {0: [{"loss": 1.0}], 3: []}
    with pytest.raises(ValueError, match="output of stage pretrain has no variant"):
        _ = pretrained.variant
