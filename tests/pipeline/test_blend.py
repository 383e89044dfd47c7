import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import pyfunc

from imputune.models.blending import Blend
from imputune.registry.versions import Registry
from projects import copy_of, heads_folder, invoke, refused, set_params

NAME = "imputune-mortality-synthetic"
BLEND = "blend-frozen-members-none"
MEMBERS = ("mlp2-frozen-hidden-plateau", "xgboost-frozen-summary-none")
LABELS = [f"csai/{name}" for name in MEMBERS]
FINETUNE = ["finetune", "--head", "blend"]


@pytest.fixture
def blended(models: Path) -> Path:
    """A copy of the project in which the two members of the blend are finished."""
    set_params(models, {"blend.members": LABELS, "blend.scale": "calibrated"})
    return models


def done(project: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a command that succeeds; return what it printed."""
    result = invoke(project, words, monkeypatch)
    assert result.exit_code == 0, result.output
    return result.stdout


def predictions(project: Path, name: str) -> pd.DataFrame:
    """Return a variant's predictions, a row for each fold and stay."""
    return pd.read_csv(heads_folder(project) / name / "predictions.csv").set_index(["fold", "stay_id"])


def newest(project: Path) -> str:
    """Return the number of the newest version."""
    return str(Registry(project, NAME).versions()[0].number)


def test_a_blend_goes_from_its_members_to_champion_and_to_a_prediction(blended, records, monkeypatch):
    """Trained, registered with its members, promoted; it predicts the mean of its members' calibrated risks."""
    done(blended, FINETUNE, monkeypatch)
    [version] = [each for each in Registry(blended, NAME).versions() if each.variant == BLEND]
    by_variant = {each.variant: each for each in Registry(blended, NAME).versions()}
    assert version.tag("members") == ",".join(LABELS)
    assert version.tag("member_versions") == ",".join(str(by_variant[name].number) for name in MEMBERS)
    assert version.tag("member_runs") == ",".join(by_variant[name].run_id for name in MEMBERS)
    card = version.description
    assert f"It is a blend of {', '.join(LABELS)} (csai/{BLEND}); the risk is the mean of 3 fold models." in card
    assert f"- versions of the members: {version.tag('member_versions')}\n" in card
    said = done(blended, ["promote", "--version", str(version.number), "--json"], monkeypatch)
    decision = json.loads(said)
    assert decision["outcome"] == "promoted"
    assert {gate["name"]: gate["passed"] for gate in decision["gates"]}["reproduces its test AUC"]
    bundle = Registry(blended, NAME).load(version)
    table = predictions(blended, BLEND)
    members = [predictions(blended, name) for name in MEMBERS]
    for number, model in zip(bundle.about.folds, bundle.models, strict=True):
        blend: Blend = model.predictor.blend
        test = table.loc[number][table.loc[number]["split"] == "test"]
        risk_MN = np.stack([each.loc[number].loc[test.index, "risk"].to_numpy() for each in members])
        scaled = [scale(risk_N) for scale, risk_N in zip(blend.scales, risk_MN, strict=True)]
        assert test["risk"].to_numpy() == pytest.approx(np.mean(scaled, axis=0), abs=1e-6)
    printed = done(blended, ["predict", "--records", str(records)], monkeypatch)
    (blended / "risks.csv").write_text(printed)
    risks = pd.read_csv(blended / "risks.csv").set_index("RecordID")["risk"]
    assert risks.between(0, 1).all()
    assert len(risks) == len(table.loc[0].index.union(table.loc[1].index).union(table.loc[2].index))
    line = refused(invoke(blended, ["explain", "--records", str(records), "--stay", "1"], monkeypatch))
    named = " or ".join(f"{by_variant[name].number} (csai/{name})" for name in MEMBERS)
    assert line == f"a blend is explained member by member: name one with --model, {named}"


def test_a_blend_is_an_mlflow_model_that_answers_as_predict_does(blended, records, monkeypatch):
    """Loaded by mlflow alone, the version gives the same risks; its requirements are those of both members."""
    done(blended, FINETUNE, monkeypatch)
    number = newest(blended)
    table = pd.DataFrame(
        {"RecordID": [1, 1, 2], "Time": ["00:10", "05:00", "20:30"], "Parameter": "HR", "Value": [80.0, 130.0, 60.0]}
    )
    table.to_csv(blended / "stays.csv", index=False)
    done(blended, ["predict", "--model", number, "--records", "stays.csv", "--out", "risks.csv"], monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{blended}/mlflow.db")
    served = pyfunc.load_model(f"models:/{NAME}/{number}").predict(table)
    assert served["risk"].to_numpy() == pytest.approx(pd.read_csv(blended / "risks.csv")["risk"].to_numpy())
    requirements = (Path(pyfunc.get_model_dependencies(f"models:/{NAME}/{number}"))).read_text()
    assert "xgboost" in requirements
    assert "torch" in requirements


def test_a_blend_is_recalibrated_with_its_members(blended, records, monkeypatch):
    """The new version holds the members too; it corrects the mean of the same fold models, in the same order."""
    done(blended, FINETUNE, monkeypatch)
    before, other = newest(blended), blended / "other"
    done(blended, ["extract", "synthetic", "--stays", "200", "--seed", "7", "--out", str(other)], monkeypatch)
    done(blended, ["recalibrate", "--model", before, "--data", str(other)], monkeypatch)
    assert newest(blended) == str(int(before) + 1)
    risks = []
    for number in (before, newest(blended)):
        done(blended, ["predict", "--model", number, "--records", str(records), "--out", "risks.csv"], monkeypatch)
        risks.append(pd.read_csv(blended / "risks.csv")["risk"])
    assert not np.allclose(*risks)
    assert risks[0].rank().tolist() == pytest.approx(risks[1].rank().tolist())


def test_members_are_trained_before_the_blend_in_one_grid(blended, monkeypatch):
    """A member that is asked for in the same command is trained first; the blend is what it is when it comes later."""
    done(blended, FINETUNE, monkeypatch)
    later = predictions(blended, BLEND)
    for name in (*MEMBERS, BLEND):
        shutil.rmtree(heads_folder(blended) / name)
    words = ["--head", "blend,mlp2,xgboost", "--input", "members,hidden,summary", "--mode", "frozen"]
    done(blended, ["grid", *words, "--schedule", "plateau,none", "--fold", "0,2"], monkeypatch)
    assert not (heads_folder(blended) / BLEND).exists()
    done(blended, ["grid", *words, "--schedule", "plateau,none"], monkeypatch)
    pd.testing.assert_frame_equal(predictions(blended, BLEND), later)
    said = invoke(blended, ["grid", "--head", "blend"], monkeypatch).stderr
    assert "1 variant is done already" in said


def test_the_settings_and_the_members_of_a_blend_make_it_stale(blended, monkeypatch):
    """With another scale, or a member made of other settings, the grid trains the blend again, or says why not."""
    done(blended, FINETUNE, monkeypatch)
    first = predictions(blended, BLEND)
    set_params(blended, {"blend.scale": "ranks", "blend.weights": "cross_fitted"})
    done(blended, ["grid", "--head", "blend"], monkeypatch)
    assert not predictions(blended, BLEND)["risk"].equals(first["risk"])
    set_params(blended, {"non_neural.xgboost.trees": 5})
    line = refused(invoke(blended, ["grid", "--head", "blend"], monkeypatch))
    assert line == (
        f"csai/{BLEND} combines {LABELS[1]}, which was fine-tuned with other settings (non_neural.xgboost.trees): run "
        "`imputune finetune synthetic --head xgboost --input summary --mode frozen --schedule none --imputer csai` "
        "again"
    )


def test_compare_shows_the_blend_and_names_its_members(blended, monkeypatch):
    """It stands among all variants and not among non-neural heads; a note has its members, or that one changed."""
    done(blended, FINETUNE, monkeypatch)
    shown = invoke(blended, ["compare"], monkeypatch).output
    assert f"blend combines {LABELS[0]} and {LABELS[1]} (calibrated, weights equal)" in shown.replace("\n", " ")
    rows = json.loads((blended / "results/synthetic/results.json").read_text())["rows"]
    [row] = [row for row in rows if row["head"] == "blend"]
    assert (row["input"], row["schedule"], row["num_parameters"]) == ("members", "none", None)
    page = (blended / "results/synthetic/comparison.md").read_text()
    assert "blend" not in page.split("Non-neural heads")[1].split("##")[0]
    shutil.rmtree(heads_folder(blended) / MEMBERS[0])
    shown = invoke(blended, ["compare"], monkeypatch).output.replace("\n", " ")
    assert f"{LABELS[0]}, a member of the blend, is missing: run `imputune finetune --head blend` again" in shown


def test_a_pulled_blend_is_registered_after_its_members(blended, tmp_path, monkeypatch):
    """Without a store, `register` makes the members' versions and then the blend's; one without members is skipped."""
    done(blended, FINETUNE, monkeypatch)
    for name in ("whole", "without"):
        (tmp_path / name).mkdir()
    pulled = copy_of(blended, tmp_path / "whole", without=("mlflow.db", "src"))
    *others, line, total = done(pulled, ["register"], monkeypatch).splitlines()
    assert line == f"csai/{BLEND} is version {len(others)} of {NAME}"
    assert total == f"registered {len(others) + 1} models of synthetic"
    version = Registry(pulled, NAME).find(str(len(others)))
    assert [
        f"{label} is version {number} of {NAME}" in others
        for label, number in zip(LABELS, version.tag("member_versions").split(","), strict=True)
    ] == [True, True]
    assert json.loads(done(pulled, ["promote", "--version", str(version.number), "--json"], monkeypatch))["gates"]
    without = copy_of(blended, tmp_path / "without", without=("mlflow.db", "src", MEMBERS[1]))
    said = done(without, ["register"], monkeypatch)
    assert f"csai/{BLEND} is skipped: {LABELS[1]}, a member of the blend, is missing" in said


def test_a_changed_member_of_a_registered_blend_is_refused(blended, records, monkeypatch):
    """A byte changed in a member's weights, or in its bundle.json, is one line that says so."""
    done(blended, FINETUNE, monkeypatch)
    number = newest(blended)
    predict = ["predict", "--model", number, "--records", str(records)]
    [member] = [path.parent for path in (blended / "mlruns").rglob("member-1/bundle.json")]
    about = (member / "bundle.json").read_text()
    (member / "bundle.json").write_text(about.replace('"threshold"', ' "threshold"'))
    assert "bundle.json has changed since it was registered" in refused(invoke(blended, predict, monkeypatch))
    (member / "bundle.json").write_text(about)
    weights = member / "fold-1.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert "the weights of fold 1 have changed since they were registered" in refused(
        invoke(blended, predict, monkeypatch)
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            ["csai/mlp2-frozen-hidden-cyclic", LABELS[1]],
            f"csai/{BLEND} combines csai/mlp2-frozen-hidden-cyclic, which is not fine-tuned yet: run `imputune "
            "finetune synthetic --head mlp2 --input hidden --mode frozen --schedule cyclic --imputer csai` first",
        ),
        (
            ["csai/mlp3-frozen-hidden-plateau", LABELS[1]],
            "params.yaml, blend.members: unknown head 'mlp3' (did you mean 'mlp5'?): choose from mlp2, mlp5, lstm, ",
        ),
        (["mlp2", LABELS[1]], "params.yaml, blend.members: 'mlp2' names no variant: write it as csai/mlp2-frozen-"),
        ([f"csai/{BLEND}", LABELS[1]], f"params.yaml, blend.members: csai/{BLEND} is a blend itself: name its members"),
        (
            ["csai/svm-frozen-summary-none", LABELS[1]],
            "params.yaml, blend.members: csai/svm-frozen-summary-none is not registered as a model, so no version can ",
        ),
        (
            ["mean/mlp2-frozen-imputed-plateau", LABELS[1]],
            "params.yaml, blend.members: mean/mlp2-frozen-imputed-plateau is not registered as a model",
        ),
        ([LABELS[1]], "params.yaml: blend.members"),
        ([LABELS[1], LABELS[1]], "params.yaml: blend.members"),
    ],
)
def test_impossible_members_are_refused_in_one_line(models, monkeypatch, members, message):
    """A member that is missing, unknown, a blend, or not registered; fewer than two; one named twice."""
    set_params(models, {"blend.members": members})
    assert refused(invoke(models, FINETUNE, monkeypatch)).startswith(message)


@pytest.mark.parametrize(("field", "word"), [("cohort_hash", "data"), ("folds_hash", "folds")])
def test_members_of_other_data_or_folds_are_refused(blended, monkeypatch, field, word):
    """A member that was fine-tuned on other data or folds is named, with what to run."""
    path = heads_folder(blended) / MEMBERS[0] / "result.json"
    content = json.loads(path.read_text())
    content["made_from"][field] = "of another"
    path.write_text(json.dumps(content))
    line = refused(invoke(blended, FINETUNE, monkeypatch))
    assert line.startswith(f"csai/{BLEND} combines {LABELS[0]}, which was fine-tuned with other {word}: run `imputune ")


def test_a_blend_belongs_to_no_imputer_and_has_no_epochs(blended, monkeypatch):
    """--imputer mean and overfit are refused in one line."""
    wanted = "blend belongs to no imputer, because its members have their own: leave out imputer mean"
    assert refused(invoke(blended, [*FINETUNE, "--imputer", "mean"], monkeypatch)) == wanted
    assert refused(invoke(blended, ["grid", "--head", "blend", "--imputer", "mean"], monkeypatch)) == wanted
    assert refused(invoke(blended, ["overfit", "--head", "blend"], monkeypatch)).startswith("blend ")


def test_dvc_makes_no_blend_of_members_that_dvc_yaml_does_not_name(blended, monkeypatch):
    """A third member that stage finetune_blend does not depend on is refused under DVC, in one line with the remedy."""
    set_params(blended, {"blend.members": [*LABELS, "csai/xgboost-frozen-hidden-none"]})
    line = refused(invoke(blended, FINETUNE, monkeypatch, {"DVC_STAGE": "finetune_blend"}))
    path = '"artifacts/${item.dataset}/heads/${outcome}/${blend.members[2]}"'
    assert line == (
        f"dvc.yaml does not name csai/xgboost-frozen-hidden-none at stage finetune_blend: add {path} to its deps"
    )
    text = (blended / "dvc.yaml").read_text()
    (blended / "dvc.yaml").write_text(text.replace("      src/imputune", f"      {path},\n      src/imputune", 1))
    assert invoke(blended, FINETUNE, monkeypatch, {"DVC_STAGE": "finetune_blend"}).exit_code == 0
