import pytest

from imputune.cli.training import GridOptions
from imputune.settings.file import read_params
from projects import ROOT


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
