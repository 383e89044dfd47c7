from pathlib import Path

import pytest

from imputune.errors import UserError
from imputune.protocol.variants import (
    PROTOCOL,
    Cell,
    choose_cells,
    grid_cells,
    make_cell,
)
from imputune.settings.file import read_params

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_the_protocol_is_the_papers() -> None:
    """Two perceptrons and two recurrent heads with two inputs, in two modes under three schedules; two shallow ones."""
    assert len(PROTOCOL) == len(set(PROTOCOL)) == 2 * 2 * 3 + 2 * 2 * 2 * 3 + 2 * 3
    for mode in ("frozen", "unfrozen"):
        neural = [cell for cell in PROTOCOL if cell.is_neural and cell.mode == mode]
        readers = {(cell.head, cell.input) for cell in neural}
        assert readers == {
            ("mlp2", "hidden"),
            ("mlp5", "hidden"),
            *((head, reads) for head in ("lstm", "gru") for reads in ("imputed", "raw")),
        }
        assert {cell.schedule for cell in neural} == {"optuna", "cyclic", "plateau"}
    shallow = [cell.name for cell in PROTOCOL if not cell.is_neural]
    assert shallow == [f"{h}-frozen-{i}-none" for h in ("xgboost", "svm") for i in ("imputed", "hidden", "summary")]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("mlp2",), "mlp2-frozen-hidden-plateau"),
        (("lstm", "", "", ""), "lstm-frozen-imputed-plateau"),
        (("gru", "unfrozen", "raw", "optuna"), "gru-unfrozen-raw-optuna"),
        (("xgboost",), "xgboost-frozen-imputed-none"),
        (("svm", None, "summary"), "svm-frozen-summary-none"),
    ],
)
def test_what_is_left_out_takes_the_heads_default(words: tuple[str, ...], name: str) -> None:
    """Frozen, its first input, and plateau, or none where there is no schedule."""
    assert make_cell(*words).name == name
    assert make_cell(*words) in PROTOCOL


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("svm", "unfrozen"),
            "svm has no mode 'unfrozen': xgboost and svm exist with mode frozen, input imputed|hidden|summary, "
            "schedule none",
        ),
        (
            ("mlp2", "", "raw"),
            "mlp2 has no input 'raw': mlp2 and mlp5 exist with mode frozen|unfrozen, input hidden, "
            "schedule optuna|cyclic|plateau",
        ),
        (("lstm", "", "hidden"), "lstm has no input 'hidden': lstm and gru exist with mode frozen|unfrozen"),
        (("gru", "", "summary"), "gru has no input 'summary': lstm and gru exist"),
        (("xgboost", "", "raw"), "xgboost has no input 'raw'"),
        (("xgboost", "", "", "plateau"), "xgboost has no schedule 'plateau'"),
        (("mlp5", "", "", "none"), "mlp5 has no schedule 'none'"),
        (("mlp3",), "unknown head 'mlp3' (did you mean 'mlp5'?): choose from mlp2, mlp5, lstm, gru, xgboost, svm"),
        (("mlp2", "melted"), "unknown mode 'melted': choose from frozen, unfrozen"),
        (("gru", "", "imputd"), "unknown input 'imputd' (did you mean 'imputed'?)"),
        (("gru", "", "", "platoe"), "unknown schedule 'platoe' (did you mean 'plateau'?)"),
    ],
)
def test_impossible_cells_are_refused_with_those_that_exist(words: tuple[str, ...], message: str) -> None:
    """An unknown word names the near miss; a combination that does not exist, the ones that do."""
    with pytest.raises(UserError) as caught:
        make_cell(*words)
    assert str(caught.value).startswith(message)


def test_choosing_by_parts() -> None:
    """Words of one part are alternatives, parts must hold together, a part without words takes any."""
    names = [cell.name for cell in choose_cells({"head": ["lstm", "mlp2"], "mode": ["frozen"], "schedule": ["cyclic"]})]
    assert names == ["mlp2-frozen-hidden-cyclic", "lstm-frozen-imputed-cyclic", "lstm-frozen-raw-cyclic"]
    assert choose_cells({}) == list(PROTOCOL)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"head": ["svm"], "mode": ["unfrozen"]},
            "no cell has head svm, mode unfrozen: xgboost and svm exist",
        ),
        (
            {"head": ["mlp2"], "input": ["raw"]},
            "no cell has head mlp2, input raw: mlp2 and mlp5 exist with",
        ),
        ({"head": ["gru", "mlp2"], "input": ["raw"]}, "no cell with head gru or mlp2, input raw has mlp2:"),
        ({"head": ["grue"]}, "unknown head 'grue' (did you mean 'gru'?)"),
    ],
)
def test_choosing_nothing_is_refused(wanted: dict[str, list[str]], message: str) -> None:
    """Parts that no cell has together are named with those that exist."""
    with pytest.raises(UserError) as caught:
        choose_cells(wanted)
    assert str(caught.value).startswith(message)


def test_the_grid_of_params_is_cells_of_the_protocol() -> None:
    """params.yaml names some of the protocol's cells, in its order."""
    cells = grid_cells(read_params(PARAMS).grid)
    assert cells == sorted(cells, key=PROTOCOL.index)
    assert Cell("mlp2", "unfrozen", "hidden", "plateau") in cells
    assert all(cell.frozen in cells for cell in cells)
