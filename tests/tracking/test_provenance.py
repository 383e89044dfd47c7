import platform
import subprocess
from importlib.metadata import version

from imputune.models.compiled.library import name_of_code
from imputune.tracking.provenance import flattened, source_tags


def git(folder, *arguments):
    """Run git in a folder and return what it prints."""
    person = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", folder, *person, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_commit_and_changes_are_named(tmp_path):
    """The commit is the checked-out one; a changed tracked file makes it dirty, a new file does not."""
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("one = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    (tmp_path / "untracked.txt").write_text("")
    tags = source_tags(tmp_path)
    assert tags["mlflow.source.git.commit"] == git(tmp_path, "rev-parse", "HEAD")
    assert tags["imputune.git_dirty"] == "false"
    (tmp_path / "code.py").write_text("one = 2\n")
    assert source_tags(tmp_path)["imputune.git_dirty"] == "true"


def test_folder_without_a_commit_names_versions_only(tmp_path):
    """Outside git only the versions are given."""
    assert source_tags(tmp_path) == {
        "imputune.python": platform.python_version(),
        "imputune.torch": version("torch"),
        "imputune.compiled": name_of_code(),
        "imputune.numpy": version("numpy"),
    }


def test_an_experiment_of_dvc_is_named(tmp_path, monkeypatch):
    """What runs in the copy that DVC made carries the experiment's name, so that others can leave it out."""
    copy = tmp_path / ".dvc/tmp/exps/tmp12"
    copy.mkdir(parents=True)
    monkeypatch.setenv("DVC_EXP_NAME", "five")
    assert source_tags(copy)["imputune.dvc_experiment"] == "five"
    assert "imputune.dvc_experiment" not in source_tags(tmp_path)


def test_nested_params_become_dotted_text():
    """Leaves of every depth become text, an empty mapping included."""
    nested = {"assess": {"ranking": {"rate": 0.1}, "extra": {}}, "heads": ["mlp2", "gru"], "limit": None}
    assert flattened(nested) == {
        "assess.ranking.rate": "0.1",
        "assess.extra": "{}",
        "heads": "['mlp2', 'gru']",
        "limit": "None",
    }
