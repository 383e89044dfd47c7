import json
import os
import re
import shlex
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imputune.artifacts.model_card import ModelCard, parsed_card
from imputune.data.cohort import cohort_hash, read_cohort, write_cohort
from imputune.evaluation.metrics import risk_scores
from imputune.pipeline.cohort_cards import extraction_day
from imputune.registry.cards import DESCRIPTION_LIMIT
from imputune.registry.version import Version
from imputune.registry.versions import Registry
from projects import STAYS, client_of, edit, heads_folder, imputer_folder, invoke, refused

NAME, IMPUTER = "imputune-mortality-synthetic", "imputune-csai-synthetic"
DAY = "2026-01-02"


def done(project: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """Run a command that succeeds; return what it printed."""
    result = invoke(project, list(words), monkeypatch)
    assert result.exit_code == 0, result.output
    return result.stdout


def version_of(project: Path, wanted: str, name: str = NAME) -> Version:
    """Return a registered version as it is now."""
    return Registry(project, name).find(wanted)


def files_of(project: Path, version: Version) -> list[dict[str, str]]:
    """Return model_card.md and .json as they stand in a version's run, and in the folder of its model."""
    client = client_of(project)
    folders = [
        client.get_run(version.run_id).info.artifact_uri,
        client.get_model_version_download_uri(version.name, str(version.number)),
    ]
    paths = [Path(folder.removeprefix("file://")) for folder in folders]
    assert all(path.is_relative_to(project) for path in paths)
    return [{name: (path / name).read_text() for name in ("model_card.md", "model_card.json")} for path in paths]


def card_of(project: Path, version: Version) -> ModelCard:
    """Return the numbers of a version's card."""
    card = parsed_card(files_of(project, version)[0]["model_card.json"])
    assert card is not None
    return card


@contextmanager
def refusing(project: Path, change: str) -> Iterator[None]:
    """Let the store refuse a change, such as INSERT ON model_version_tags, as a server does without permission."""
    with closing(sqlite3.connect(project / "mlflow.db")) as store:
        store.execute(f"CREATE TRIGGER refusing BEFORE {change} BEGIN SELECT RAISE(ABORT, 'no permission'); END")
        store.commit()
    yield
    with closing(sqlite3.connect(project / "mlflow.db")) as store:
        store.execute("DROP TRIGGER refusing")
        store.commit()


def history(text: str) -> list[str]:
    """Return the lines of a card's history."""
    return [line for line in text.partition("## History\n")[2].splitlines() if line]


def other_site(project: Path, monkeypatch: pytest.MonkeyPatch, name: str = "other", seed: str = "5") -> None:
    """Extract 300 other stays."""
    done(project, monkeypatch, "extract", "synthetic", "--stays", "300", "--seed", seed, "--out", name)


def test_every_version_has_a_card_with_the_numbers_of_its_tags_and_results(models):
    """A description that fits, the whole card as a file of its run and its model; scores are those of the tags."""
    rows = {row["run_id"]: row for row in json.loads((models / "results/synthetic/results.json").read_text())["rows"]}
    versions = Registry(models, NAME).versions()
    assert len(versions) == 6
    for version in versions:
        in_run, in_model = files_of(models, version)
        assert in_run == in_model
        assert in_run["model_card.md"].startswith(f"# {NAME}, version {version.number}\n")
        for text in (version.description, in_run["model_card.md"]):
            assert "35 variables" in text
            assert "HR (beats/min)" in text
            assert f"models:/{NAME}/{version.number} " in text
            assert version.variant in text
        assert len(version.description) <= DESCRIPTION_LIMIT
        card, row = card_of(models, version), rows[version.run_id]
        for line in card.folds:
            recorded = {name: round(score, 6) for name, score in line.scores.items()}
            assert recorded == pytest.approx(version.fold_scores[line.fold], nan_ok=True)
            low, high = line.intervals["test_auc"]
            assert low <= line.scores["test_auc"] <= high
        spread = [f"{row[f'{score}_mean']:.3f} ± {row[f'{score}_std']:.3f}" for score in ("test_auc", "test_auprc")]
        assert f"| mean |  | {' | '.join(spread)} | " in version.description
        assert card.lineage["run_id"] == version.run_id
        assert card.lineage["imputer_version"] == "1"
        bundle = Registry(models, NAME).load(version)
        assert card.threshold == bundle.threshold
        assert f"if its risk is at least {bundle.threshold:.3f} (Youden's index on" in version.description
        first = version.description.splitlines()[0]
        assert first.startswith(f"{version.tag('head')} · {version.tag('input')}")
        assert first.endswith(f" on synthetic: test AUC {spread[0]}")


def test_a_card_scores_the_test_stays_of_all_folds(models):
    """Mean risk, outcome rate, calibration and threshold are of the risks in predictions.csv; the cohort is data/'s."""
    version = next(each for each in Registry(models, NAME).versions() if each.tag("head") == "mlp2")
    card = card_of(models, version)
    table = pd.read_csv(heads_folder(models) / version.variant / "predictions.csv")
    test = table[table["split"] == "test"]
    cohort = read_cohort(models / "data/synthetic")
    outcome_N, risk_N = cohort.outcome_of(test["stay_id"].to_numpy()), test["risk"].to_numpy()
    assert card.test is not None
    every = card.test.all_stays
    assert (every.stays, every.events) == (STAYS, outcome_N.sum())
    assert (every.mean_risk, every.outcome_rate) == pytest.approx((risk_N.mean(), outcome_N.mean()), abs=1e-6)
    expected = risk_scores(outcome_N, risk_N)
    assert every.auc.value == pytest.approx(expected["auc"])
    assert card.test.calibration["slope"] == pytest.approx(expected["calibration_slope"], abs=1e-4)
    assert card.test.sensitivity == pytest.approx((risk_N[outcome_N == 1] >= card.threshold).mean())
    assert card.test.some_left_out  # 60 stays with 6 deaths have groups of fewer than five
    assert "Groups with fewer than 10 stays, 5 deaths or 5 survivors are left out" in version.description
    assert card.cohort is not None
    assert (card.cohort.stays, card.cohort.outcomes, card.cohort.hours) == (STAYS, cohort.outcome_N.sum(), 48)
    assert card.cohort.cohort_hash == version.tag("cohort_hash") == cohort_hash(models / "data/synthetic")
    assert f"- day of extraction: {extraction_day(models / 'data/synthetic')}" in version.description


def test_the_imputers_version_has_its_errors(models):
    """The card of the imputer has the errors of result.json; both registered models have a description."""
    version = version_of(models, "1", IMPUTER)
    result = json.loads((imputer_folder(models) / "result.json").read_text())
    for fold in result["folds"]:
        shown = [f"{fold['scores'][name]:.3f}" for name in ("test_mae_uniform", "test_mre_uniform")]
        assert f"| {fold['fold']} | 20 | {' | '.join(shown)} | " in version.description
    assert "It fills in the missing hourly values" in version.description
    for name, words in ((IMPUTER, "Fills in missing hourly values"), (NAME, "Risk of in-hospital death")):
        assert client_of(models).get_registered_model(name).description.startswith(words)


def test_the_card_says_how_to_call_the_version(models, records, monkeypatch):
    """Its Python runs, and gives the risk of the version; its imputune command gives a risk for each record."""
    version = version_of(models, "1")
    whole = files_of(models, version)[0]["model_card.md"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{models}/mlflow.db")
    for text in (version.description, whole):
        python = re.search(r"```python\n(.*?)```", text, re.DOTALL)
        names: dict[str, object] = {}
        exec(python.group(1), names)
        answer = names["answer"]
        assert isinstance(answer, pd.DataFrame)
        assert answer["risk"].between(0, 1).all()
        assert answer["observed_cells"].tolist() == [3 if text == whole else 1]
    explained = re.findall(r"^- (\w+): ", whole.partition("The answer has a RecordID and:")[2], re.MULTILINE)
    assert explained == [column for column in answer.columns if column != "RecordID"]
    [request] = re.findall(r"^\$ (curl .*)$", whole, re.MULTILINE)
    assert json.loads(shlex.split(request)[-1])["dataframe_split"]["data"] == names["rows"]
    [command] = re.findall(r"\$ imputune (predict .*)", version.description)
    printed = done(models, monkeypatch, *command.replace("stay.csv", str(records)).split())
    assert len(printed.splitlines()) == STAYS + 1


def test_promote_and_rollback_add_lines(models, monkeypatch):
    """Promoted, replaced, rolled back and champion again: a line each on both versions, in description and file."""
    done(models, monkeypatch, "promote", "--version", "2")
    done(models, monkeypatch, "promote", "--version", "2")  # unchanged
    [line] = history(version_of(models, "2").description)
    decision = json.loads(version_of(models, "2").tag("decision"))
    assert line.startswith("- **Promoted to champion:** 20")
    for gate in decision["gates"]:
        assert f"{gate['name']}: {gate['found']} (wanted: {gate['wanted']})" in line
    done(models, monkeypatch, "promote", "--version", "4", "--dry-run")
    assert history(version_of(models, "4").description) == []
    done(models, monkeypatch, "promote", "--version", "4")
    [line] = history(version_of(models, "4").description)
    difference = json.loads(version_of(models, "4").tag("decision"))["difference"]
    assert f"Test AUC minus version 2's on the same stays {difference['mean']:+.4f}".replace("-", "−") in line
    done(models, monkeypatch, "promote", "--rollback")
    done(models, monkeypatch, "promote", "--rollback")
    done(models, monkeypatch, "promote", "--rollback")
    starts = {
        "2": [
            "- **Promoted to champion:**",
            "- **Replaced as champion by version 4:**",
            "- **Champion again in place of version 4:**",
            "- **Rolled back to version 4:**",
            "- **Champion again in place of version 4:**",
        ],
        "4": [
            "- **Promoted to champion over version 2:**",
            "- **Rolled back to version 2:**",
            "- **Champion again in place of version 2:**",
            "- **Rolled back to version 2:**",
        ],
    }
    for number, expected in starts.items():
        version = version_of(models, number)
        found = history(version.description)
        assert [line[: line.index(":**") + 3] for line in found] == expected
        for files in files_of(models, version):
            assert history(files["model_card.md"]) == found


def test_a_champion_whose_card_failed_gets_its_lines_later(models, monkeypatch):
    """The promotion stands, with a warning; promoting the champion once more adds the lines of both versions, once."""
    done(models, monkeypatch, "promote", "--version", "2")
    with refusing(models, "UPDATE OF description ON model_versions"):
        result = invoke(models, ["promote", "--version", "4"], monkeypatch)
    assert result.exit_code == 0, result.output
    assert result.stderr.count(f"warning: the model card of {NAME} version 4 was not written: ") == 1
    assert Registry(models, NAME).aliases() == {"champion": 4, "previous": 2}
    assert history(version_of(models, "4").description) == []
    for number in ("2", "4"):  # the file is written before the description: as if the store had failed earlier
        for folder in (models / "mlruns").rglob("model_card.md"):
            if folder.read_text().startswith(f"# {NAME}, version {number}\n"):
                folder.write_text(version_of(models, number).description)
    for _ in range(2):
        done(models, monkeypatch, "promote", "--version", "4")
        [line] = history(version_of(models, "4").description)
        assert line.startswith("- **Promoted to champion over version 2:** noted 20")
        assert history(version_of(models, "2").description)[1:] == [
            line for line in history(version_of(models, "2").description) if "Replaced as champion by version 4" in line
        ]
        assert len(history(version_of(models, "2").description)) == 2


def test_a_card_that_tells_of_a_promotion_tells_the_truth(models, monkeypatch):
    """If the aliases cannot move, no card has a line."""
    with refusing(models, "INSERT ON registered_model_aliases"):
        assert "no permission" in refused(invoke(models, ["promote", "--version", "2"], monkeypatch))
    assert history(version_of(models, "2").description) == []


def test_a_version_whose_card_fails_is_registered(models, monkeypatch):
    """The command succeeds with a warning for each version; `imputune register` adds the cards later."""
    edit(models, "rule: youden", "rule: sensitivity")
    with refusing(models, "UPDATE OF description ON model_versions"):
        result = invoke(models, ["register"], monkeypatch)
    assert result.exit_code == 0, result.output
    new = [version for version in Registry(models, NAME).versions() if version.number > 6]
    assert len(new) == 6
    for version in new:
        assert version.description == ""
        warning = f"warning: the model card of {NAME} version {version.number} was not written: the tracking store"
        assert warning in result.stderr
    assert result.stderr.count("`imputune register` writes it later") == 6
    assert done(models, monkeypatch, "register").count("has a model card now") == 6
    assert f"models:/{NAME}/7 " in version_of(models, "7").description


def test_who_may_not_tag_the_registry_gets_the_scores(models, monkeypatch):
    """A warning, and the files of the evaluation; the version has neither tag nor line."""
    other_site(models, monkeypatch)
    with refusing(models, "INSERT ON model_version_tags"):
        result = invoke(models, ["evaluate", "--model", "1", "--data", "other"], monkeypatch)
    assert result.exit_code == 0, result.output
    assert "AUPRC" in result.stdout
    assert f"warning: the scores were not noted on {NAME} version 1 (" in result.stderr
    assert (models / "results/synthetic/external-set-s.json").is_file()
    version = version_of(models, "1")
    assert history(version.description) == []
    assert not [name for name in version.tags if "evaluated" in name]


def test_a_refusal_names_the_gates_that_failed(models, monkeypatch):
    """A second refusal takes the place of the first."""
    (models / "params.yaml").write_text(
        (models / "params.yaml").read_text().replace("minimum_auc: 0.001", "minimum_auc: 0.999")
    )
    for _ in range(2):
        assert invoke(models, ["promote", "--version", "2"], monkeypatch).exit_code == 3
    [line] = history(version_of(models, "2").description)
    assert re.fullmatch(
        r"- \*\*Refused as champion:\*\* \d{4}-\d\d-\d\d \d\d:\d\d UTC; gates failed: minimum AUC: 0\.\d{4} "
        r"\(wanted: ≥ 0\.999\)\.",
        line,
    )


def test_evaluate_adds_a_line_and_a_tag_for_each_cohort(models, monkeypatch):
    """Numbers are those of external-<cohort>.json; the same cohort again replaces its line, another adds one."""
    for name, seed in (("other", "5"), ("third", "6")):
        other_site(models, monkeypatch, name, seed)
    for name in ("other", "third", "other"):
        done(models, monkeypatch, "evaluate", "--model", "1", "--data", name)
    version = version_of(models, "1")
    lines = history(version.description)
    digests = [cohort_hash(models / name) for name in ("third", "other")]
    assert [line.split(":**")[0] for line in lines] == [f"- **Evaluated on set-s ({each[:8]})" for each in digests]
    told = json.loads((models / "results/synthetic/external-set-s.json").read_text())
    assert told["cohort_hash"] == digests[1]
    every = told["groups"][0]
    auc, slope = every["scores"]["auc"], every["scores"]["calibration_slope"]
    assert f"; 300 stays, {every['events']} deaths ({every['events'] / 300:.1%}); AUC {auc['value']:.3f} (" in lines[1]
    assert f"calibration slope {slope['value']:.3f} ({slope['low']:.3f} to ".replace("-", "−") in lines[1]
    assert lines[1].endswith("; external.")
    tag = json.loads(version.tag(f"evaluated_{digests[1][:12]}"))
    assert (tag["stays"], tag["is_external"]) == (300, True)
    assert tag["scores"]["auc"] == [auc["value"], auc["low"], auc["high"]]
    assert client_of(models).get_run(tag["run_id"]).data.tags["imputune.command"] == "evaluate"
    assert len(version.description) <= DESCRIPTION_LIMIT


def test_what_a_user_wrote_into_a_description_stays(models, monkeypatch):
    """A line is added to the user's own words, and nothing else changes; one of the greatest length is not cut off."""
    other_site(models, monkeypatch)
    client = client_of(models)
    client.update_model_version(NAME, "1", "Ours, for the ward.")
    client.update_model_version(NAME, "2", "w" * (DESCRIPTION_LIMIT - 10))
    for number in ("1", "2"):
        done(models, monkeypatch, "evaluate", "--model", number, "--data", "other")
    text = version_of(models, "1").description
    assert text.startswith("Ours, for the ward.\n\n## History\n\n- **Evaluated on set-s (")
    assert version_of(models, "2").description.strip() == "w" * (DESCRIPTION_LIMIT - 10)
    assert len(history(files_of(models, version_of(models, "2"))[0]["model_card.md"])) == 1


def test_a_recalibrated_version_has_a_card_of_its_own(models, monkeypatch):
    """Fold scores and cohort of its source, with calibration and subgroups of the cohort it was fitted to."""
    other_site(models, monkeypatch)
    done(models, monkeypatch, "evaluate", "--model", "1", "--data", "other")
    other_site(models, monkeypatch, "third", "6")
    told = json.loads(done(models, monkeypatch, "recalibrate", "--model", "1", "--data", "third", "--json"))
    source, version = version_of(models, "1"), version_of(models, str(told["version"]))
    ours, theirs = card_of(models, version), card_of(models, source)
    assert (ours.cohort, ours.variables) == (theirs.cohort, theirs.variables)
    assert ours.test is None
    assert [line.intervals["test_auc"] for line in ours.folds] == [line.intervals["test_auc"] for line in theirs.folds]
    for line in ours.folds:
        assert line.scores == version.fold_scores[line.fold]
        assert "test_brier" not in line.scores
    assert ours.recalibration is not None
    assert ours.recalibration.after == told["after"]
    assert ours.recalibration.scores.all_stays.mean_risk == pytest.approx(told["events"] / 300, abs=1e-6)
    assert ours.recalibration.cohort.cohort_hash == cohort_hash(models / "third")
    assert ours.threshold == Registry(models, NAME).load(version).threshold
    text = version.description
    before, after = (f"{told[when]['calibration_slope']:.3f}" for when in ("before", "after"))
    assert f"the calibration slope was {before} and is {after}" in text
    assert "Version 1, corrected for another cohort: logit(risk) = " in text
    assert "- recalibrated from version: 1" in text
    assert history(text) == []
    assert not [name for name in version.tags if "evaluated" in name]


def test_a_source_without_a_card_still_gives_its_fold_scores(models, monkeypatch):
    """Of a version that an older version of imputune registered, only the tags are known."""
    other_site(models, monkeypatch)
    for folder in (models / "mlruns").rglob("model_card.json"):
        folder.unlink()
    told = json.loads(done(models, monkeypatch, "recalibrate", "--model", "1", "--data", "other", "--json"))
    version = version_of(models, str(told["version"]))
    card = card_of(models, version)
    assert card.cohort is None
    assert {line.fold: line.scores for line in card.folds} == version.fold_scores
    assert "Only the hash of the data is known: " in version.description


def test_register_gives_cards_to_versions_that_have_none(models, monkeypatch):
    """The same card as its training gave it, once; a description that somebody wrote is left alone."""
    client = client_of(models)
    before = {version.number: version.description for version in Registry(models, NAME).versions()}
    client.update_model_version(NAME, "1", "")
    client.update_model_version(NAME, "2", "Ours.")
    client.update_model_version(IMPUTER, "1", "")
    said = done(models, monkeypatch, "register")
    assert [line for line in said.splitlines() if "card" in line] == [
        f"version 1 of {IMPUTER} has a model card now",
        f"version 1 of {NAME} has a model card now",
    ]
    after = {version.number: version.description for version in Registry(models, NAME).versions()}
    assert after == before | {2: "Ours."}
    assert version_of(models, "1", IMPUTER).description.startswith("CSAI on synthetic: test MAE (uniform) 0.")
    assert "card" not in done(models, monkeypatch, "register")


def test_a_version_whose_run_was_deleted_is_still_promoted(models, monkeypatch):
    """The line stands in its description."""
    client_of(models).delete_run(version_of(models, "2").run_id)
    done(models, monkeypatch, "promote", "--version", "2")
    assert len(history(version_of(models, "2").description)) == 1


def test_the_day_of_extraction_is_when_the_files_were_written(models, monkeypatch):
    """The day is no part of the cohort: its hash is the same on another day."""
    folder = models / "data/synthetic"
    digest = cohort_hash(folder)
    day = time.mktime(time.strptime(f"{DAY} 12:00", "%Y-%m-%d %H:%M"))
    os.utime(folder / "source.json", (day, day))
    assert f"- day of extraction: {DAY}\n" in done(models, monkeypatch, "describe", "data/synthetic", "--card")
    assert cohort_hash(folder) == digest


def test_a_data_card_tells_of_a_cohort(models, monkeypatch):
    """Source, exclusions, size, each variable with its unit and how often it was observed, facts, splits, limits."""
    card = done(models, monkeypatch, "describe", "data/synthetic", "--card")
    cohort = read_cohort(models / "data/synthetic")
    observed = cohort.observed_NTD
    for d, variable in enumerate(cohort.variables):
        hours, stays = observed[:, :, d].mean(), observed[:, :, d].any(axis=1).mean()
        assert f"| {variable.name} | {variable.unit} | {hours:.1%} | {stays:.0%} |" in card
    assert f"- outcome, in-hospital death: {cohort.outcome_N.sum()} stays ({cohort.outcome_N.mean():.1%})" in card
    assert "- made by: `imputune extract synthetic --stays 60 --seed 2012`" in card
    assert f"- hash: {cohort_hash(models / 'data/synthetic')}" in card
    assert f"| Height | cm | {np.isfinite(cohort.static['height_cm']).mean():.0%} |" in card
    assert "| 0 | 20 | 20 | 20 |" in card
    done(models, monkeypatch, "describe", "data/synthetic", "--card", "--out", "card.md")
    assert (models / "card.md").read_text() == card
    other_site(models, monkeypatch)
    assert "No folds are drawn for this cohort" in done(models, monkeypatch, "describe", "other", "--card")


def test_a_data_card_says_why_folds_are_not_shown(models, monkeypatch):
    """That none are drawn only where there is no file; otherwise the error of reading it."""
    path = models / "artifacts/synthetic/folds.json"
    path.write_text("{}")
    card = done(models, monkeypatch, "describe", "data/synthetic", "--card")
    assert "The folds cannot be read: " in card
    assert "folds.json" in card
    path.unlink()
    assert "No folds are drawn" in done(models, monkeypatch, "describe", "data/synthetic", "--card")


def test_a_cohort_just_below_the_root_has_a_data_card(models, monkeypatch):
    """A path of one name, as a container may have it, names no project."""
    folder = Path("/imputune-cohort-of-a-test")
    try:
        shutil.copytree(models / "data/synthetic", folder)
    except PermissionError:
        pytest.skip("needs permission to write in /")
    try:
        assert "No folds are drawn" in done(models, monkeypatch, "describe", str(folder), "--card")
    finally:
        shutil.rmtree(folder)


def test_a_data_card_leaves_small_groups_out(models, monkeypatch):
    """Three men among 300 stays are not shown, nor the number of the women, from which theirs would follow."""
    other_site(models, monkeypatch)
    cohort = read_cohort(models / "other")
    cohort.static["gender"] = np.where(np.arange(300) < 3, 1.0, 0.0)
    write_cohort(cohort, models / "ward")
    card = done(models, monkeypatch, "describe", "ward", "--card")
    assert "| sex female |  |  |" in card
    assert "sex male" not in card
    assert "297" not in card
    assert "Groups with fewer than 10 stays, 5 deaths or 5 survivors are not shown. Counts are also hidden" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--card", "--json"], "--card is Markdown and --json is JSON: choose one"),
        (["--out", "card.md"], "--out works only with --card: add --card, or leave out --out"),
        (
            ["--card", "--out", "data/synthetic/card.md"],
            "data/synthetic/card.md is in the cohort's folder, which holds its own files only: name another file",
        ),
    ],
)
def test_describe_refuses_options_that_do_not_go_together(models, monkeypatch, words, message):
    """One line, and no file."""
    assert refused(invoke(models, ["describe", "data/synthetic", *words], monkeypatch)) == message
    assert not list(models.rglob("card.md"))
