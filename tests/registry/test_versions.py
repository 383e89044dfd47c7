import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from imputune.artifacts.stage_files import weights_file
from imputune.errors import UserError
from imputune.registry.bundle_file import write_bundle
from imputune.registry.names import BUNDLE_FOLDER, classifier_name, imputer_name
from imputune.registry.register import register_bundle, serving_requirements, version_of_run
from imputune.registry.version import Version
from imputune.registry.versions import Registry
from imputune.tracking.interrupted import end_interrupted
from imputune.tracking.runs import tracked_run

pytestmark = pytest.mark.slow

NAME = "imputune-mortality-synthetic"
LINEAGE = {"head": "mlp2", "mode": "frozen", "input": "hidden", "schedule": "plateau", "cohort_hash": "ab" * 32}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One project folder per test module: creating a store takes a second."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture
def register(root, make_about, train):
    """Register a bundle under a name; return its version and the id of its run."""

    def registered(name, about=None, lineage=LINEAGE):
        about = about or make_about()
        with tracked_run(root, experiment="imputune", command="finetune", params={}, tags={}, folds=about.folds) as run:
            number = register_bundle(run, name, about, train(about), lineage)
        return number, run.run_id

    return registered


def files_of(registry, number):
    """Return the folder of a version's files, which is in the project: nothing is copied."""
    uri = f"models:/{registry.name}/{number}"
    return Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=registry.uri))


def test_models_are_named_after_their_dataset():
    """Imputers and classifiers of a dataset are two registered models."""
    assert imputer_name("csai", "set-a") == "imputune-csai-set-a"
    assert classifier_name("synthetic") == NAME


def test_a_registered_bundle_is_loaded_as_it_was(root, register, make_about, train, tmp_path, values_NTD):
    """A version gives the risks of the bundle that was registered, and says where it comes from."""
    number, run_id = register(NAME)
    registry = Registry(root, NAME)
    version = registry.find(number)
    assert (version.name, version.number, version.run_id) == (NAME, int(number), run_id)
    assert version.variant == "mlp2-frozen-hidden-plateau"
    assert version.tag("cohort_hash") == "ab" * 32
    assert version.tag("unknown") == ""
    assert version.tag("python").startswith("3.")
    assert version.fold_scores == {
        0: {"validation_auc": 0.75, "test_auc": 0.5},
        2: {"validation_auc": 0.77, "test_auc": 0.5},
    }
    assert version.mean("validation_auc") == pytest.approx(0.76)
    about = make_about()
    checksum = write_bundle(tmp_path, about, train(about))
    assert version.tags["imputune.bundle_sha256"] == checksum
    loaded = registry.load(version)
    assert loaded.about == about
    risk_FN = loaded.risk_by_fold(values_NTD)
    for place, fold in enumerate(about.folds):
        np.testing.assert_array_equal(loaded.risk_of(fold, values_NTD), risk_FN[place])
    client = MlflowClient(registry.uri)
    assert client.get_run(run_id).data.tags["imputune.registered"] == f"{NAME}/{number}"
    assert client.get_run(run_id).info.status == "FINISHED"


def test_registering_starts_no_process(root, register, make_about, train, monkeypatch):
    """The required packages are given, so mlflow starts no process of its own to find them."""
    register(NAME)  # the first time, GitPython is imported, which asks for git's version
    about = make_about()

    def trapped(*arguments, **options):
        pytest.fail(f"registering started {arguments}")

    with tracked_run(root, experiment="imputune", command="finetune", params={}, tags={}, folds=about.folds) as run:
        monkeypatch.setattr(subprocess, "Popen", trapped)
        number = register_bundle(run, NAME, about, train(about), LINEAGE)
    required = (files_of(Registry(root, NAME), number) / "requirements.txt").read_text().split()
    assert set(serving_requirements(about)) <= set(required)


def test_a_second_try_to_register_stores_the_model_once(root, make_about, train, monkeypatch):
    """The first try stored it, and failed before it made the version."""
    create = MlflowClient.create_model_version
    about, name = make_about(), "imputune-mortality-tried-again"

    def fail(*arguments, **options):
        monkeypatch.setattr(MlflowClient, "create_model_version", create)
        raise ConnectionError("no answer")

    with tracked_run(root, experiment="again", command="finetune", params={}, tags={}, folds=about.folds) as run:
        monkeypatch.setattr(MlflowClient, "create_model_version", fail)
        with pytest.raises(UserError):
            register_bundle(run, name, about, train(about), LINEAGE)
        number = register_bundle(run, name, about, train(about), LINEAGE)
    client = MlflowClient(run.tracking_uri)
    [stored] = client.search_logged_models([client.get_experiment_by_name("again").experiment_id])
    assert client.get_model_version(name, number).source.endswith(stored.model_id)


def test_versions_and_aliases_are_found(root, register, monkeypatch):
    """Versions come newest first; an alias is another name of a number; unknown words are answered with what exists."""
    name = "imputune-mortality-found"
    register(name)
    registry = Registry(root, name)
    with pytest.raises(UserError, match="has no version or alias '9': it has no alias, and version 1; "):
        registry.find("9")
    register(name)
    assert [version.number for version in registry.versions()] == [2, 1]
    assert registry.aliases() == {}
    with pytest.raises(UserError) as caught:
        registry.find("champion")
    assert str(caught.value) == (
        f"{name} has no version or alias 'champion': it has no alias, and versions 1, 2; "
        "`imputune promote` sets champion"
    )
    registry.set_alias("champion", 1)
    assert registry.aliases() == {"champion": 1}
    assert registry.find("champion").number == registry.find("1").number == 1
    for wanted, hint in (("champoin", " (did you mean 'champion'?)"), ("9", "")):
        with pytest.raises(UserError) as caught:
            registry.find(wanted)
        assert str(caught.value) == (
            f"{name} has no version or alias {wanted!r}{hint}: it has champion (version 1), and versions 1, 2"
        )
    monkeypatch.setattr("imputune.registry.versions.SHOWN", 1)
    with pytest.raises(UserError, match=r"it has champion \(version 1\), and 2 versions, the first 1 and the last 2$"):
        registry.find("9")
    registry.set_tags(registry.find("2"), {"decision": "refused"})
    assert registry.find("2").tag("decision") == "refused"


def test_more_versions_than_a_page_are_read(root, register, monkeypatch):
    """Every page of the registry's answer counts."""
    name = "imputune-mortality-pages"
    for _ in range(2):
        register(name)
    monkeypatch.setattr("imputune.registry.versions.PAGE_VERSIONS", 1)
    assert [version.number for version in Registry(root, name).versions()] == [2, 1]


def test_a_model_that_nobody_registered_is_named(root, register):
    """The error names the models that exist and what to run."""
    name = "imputune-csai-nobody"
    register(imputer_name("csai", "synthetic"))
    assert Registry(root, name).aliases() == {}
    with pytest.raises(UserError, match=rf"^no model {name} is registered in {root}/mlflow.db; the registry has "):
        Registry(root, name).versions()


def test_altered_files_of_a_version_are_named_with_it(root, register):
    """A loaded version's files are compared with the checksums of its registration."""
    name = "imputune-mortality-altered"
    number, _ = register(name)
    registry = Registry(root, name)
    version = registry.find(number)
    folder = files_of(registry, number) / BUNDLE_FOLDER
    assert root in folder.parents
    path = weights_file(folder, 0)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=rf"^{name} version 1: the weights of fold 0 have changed"):
        registry.load(version)
    (folder / "bundle.json").write_text((folder / "bundle.json").read_text() + "\n")
    with pytest.raises(UserError, match=rf"^{name} version 1: .*bundle\.json has changed since it was registered"):
        registry.load(version)


def test_the_version_of_a_run_is_its_newest(root, register):
    """Lineage of a head names the imputer's version by its run."""
    name = "imputune-csai-lineage"
    numbers = [register(name) for _ in range(2)]
    uri = Registry(root, name).uri
    assert [version_of_run(uri, name, run_id) for _, run_id in numbers] == ["1", "2"]
    assert version_of_run(uri, name, "0" * 32) == ""


def test_versions_of_a_killed_command_are_deleted(root, register, make_about, train):
    """A command that was killed after registering leaves no version, and its runs end as KILLED."""
    name = "imputune-mortality-killed"
    kept, finished = register(name)
    client = MlflowClient(Registry(root, name).uri)
    experiment = client.get_run(finished).info.experiment_id
    killed = client.create_run(experiment)
    nested = client.create_run(experiment, tags={"mlflow.parentRunId": killed.info.run_id})
    client.create_model_version(name, "runs:/x/bundle", killed.info.run_id)
    assert end_interrupted(root, killed.info.run_id) is False
    assert end_interrupted(root, finished) is True
    assert end_interrupted(root, "0" * 32) is False
    assert [str(version.number) for version in Registry(root, name).versions()] == [kept]
    statuses = [client.get_run(run.info.run_id).info.status for run in (killed, nested)]
    assert statuses == ["KILLED", "KILLED"]


def test_versions_of_early_imputune_have_no_scores():
    """A version without the tag of scores has none."""
    version = Version(name=NAME, number=1, run_id="", tags={"imputune.head": "mlp2"})
    assert version.fold_scores == {}


def test_mlflow_reads_our_settings_at_its_first_import():
    """The registry alone, too, sets them before it imports mlflow."""
    code = (
        "import sys, imputune.registry, os\n"
        "assert 'mlflow' not in sys.modules and os.environ['MLFLOW_DISABLE_TELEMETRY'] == 'true'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
