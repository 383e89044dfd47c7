import pytest

from imputune.cli import options
from imputune.cli.training import GridOptions
from imputune.errors import UserError
from imputune.settings.file import read_params
from projects import ROOT, grid_of, invoke, new_project, refused


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"imputer": "all"},
        {"imputer": "csai,mean", "head": "gru"},
        {"head": "mlp2,gru", "mode": "frozen"},
        {"input": "summary", "fold": "0,2"},
        {"all_variants": True},
    ],
)
def test_a_grid_is_run_again_with_the_same_variants(words):
    """By the options in its run's description, which `mlflow run` can pass on too."""
    params, typed = read_params(ROOT / "params.yaml"), GridOptions(**words)
    again = GridOptions(**typed.repeated)
    assert again.variants(params) == typed.variants(params)
    assert again.fold == typed.fold
    assert not again.all_variants


def test_a_grid_without_a_variant_of_csai_is_one_line(tmp_path, monkeypatch):
    """`imputune grid` trains CSAI's variants; if params.yaml has none, it says so before it reads anything."""
    mean = {"imputer": ["mean"], "head": ["xgboost"], "input": ["imputed"]}
    project = new_project(tmp_path / "project", **grid_of(non_neural=mean))
    for words in (["grid"], ["grid", "--list"]):
        line = refused(invoke(project, words, monkeypatch))
        assert line.startswith("params.yaml has no variant of csai under grid: add csai to a block's imputer")
    assert not (project / "artifacts").exists()


def test_a_wrong_address_of_the_store_is_told_before_ray_starts(monkeypatch):
    """Ray takes seconds to start, and on a busy machine much longer."""
    started = []
    monkeypatch.setattr(options, "chosen_engine", lambda *words: started.append(words))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "127.0.0.1:5077")
    monkeypatch.chdir(ROOT)
    chosen = GridOptions(engine="ray").chosen_engine(read_params(ROOT / "params.yaml"))
    with pytest.raises(UserError, match="is no address of a tracking store"), chosen:
        pass
    assert started == []
