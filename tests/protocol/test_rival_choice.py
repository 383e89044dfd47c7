from pathlib import Path

import pytest

from imputune.errors import UserError
from imputune.protocol import rival_choice
from imputune.protocol.published import REFERENCES
from imputune.protocol.rival_choice import RIVALS, choose_rivals, listed_rivals
from imputune.settings.file import read_params
from imputune.settings.rival_sections import Rivals


def labels(*words: str, inputs: tuple[str, ...] = ()) -> list[str]:
    """Return the labels of the chosen rivals."""
    return [rival.label for rival in choose_rivals(words, inputs)]


def named(**lists: list[str]) -> Rivals:
    """Return the section of params.yaml with other lists."""
    section = read_params(Path(__file__).parents[2] / "params.yaml").rivals
    return Rivals.model_validate(section.model_dump() | lists)


def test_rivals_come_in_the_catalogue_s_order_each_once() -> None:
    """Without an input they read values, mask and hours."""
    assert labels("mtan", "seft", "mtan") == ["seft-raw", "mtan-raw"]
    assert labels("seft", inputs=("raw+static", "raw")) == ["seft-raw", "seft-raw+static"]


@pytest.mark.parametrize(
    ("words", "inputs", "message"),
    [
        (("self",), (), r"unknown rival 'self' \(did you mean 'seft'\?\): choose from seft, .*tefn, all"),
        (("seft",), ("raw+statik",), r"unknown input 'raw\+statik' \(did you mean 'raw\+static'\?\): choose from raw"),
    ],
)
def test_an_unknown_word_is_one_line(words: tuple[str, ...], inputs: tuple[str, ...], message: str) -> None:
    """With the near miss and the choices."""
    with pytest.raises(UserError, match=message):
        choose_rivals(words, inputs)


def test_networks_of_pypots_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says what to install; all means these too."""
    monkeypatch.setattr(rival_choice, "find_spec", lambda name: None)
    assert labels("seft") == ["seft-raw"]
    for word in ("brits", "all"):
        with pytest.raises(UserError, match=r"rival brits needs PyPOTS, .*pip install -e '\.\[pypots\]'"):
            choose_rivals([word], [])


def test_all_means_every_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    """In both forms."""
    monkeypatch.setattr(rival_choice, "find_spec", lambda name: object())
    assert labels("all") == [f"{name}-raw" for name in RIVALS]


def test_params_yaml_names_rivals_by_input() -> None:
    """Rivals that read static facts stand in a list of their own; none at all is one line."""
    found = listed_rivals(named(raw=["mtan", "seft"], raw_static=["seft"]))
    assert [rival.label for rival in found] == ["seft-raw", "seft-raw+static", "mtan-raw"]
    with pytest.raises(UserError, match=r"names no rival under rivals\.raw"):
        listed_rivals(named(raw=[], raw_static=[]))


def test_every_quoted_figure_belongs_to_a_rival() -> None:
    """The landmarks that the paper and others quote are those of four rivals."""
    assert {kind.reference for kind in RIVALS.values() if kind.reference} == set(REFERENCES)
