"""The catalogue of rivals, and choosing among them."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import product
from typing import get_args

from pydantic import BaseModel, ConfigDict

from imputune.errors import UserError, near_miss
from imputune.protocol.rivals import Rival
from imputune.settings.names import OwnRival, PypotsRival, RivalInput, RivalName
from imputune.settings.rival_sections import Rivals

INPUTS: tuple[RivalInput, ...] = get_args(RivalInput)
OWN: tuple[OwnRival, ...] = get_args(OwnRival)
PYPOTS: tuple[PypotsRival, ...] = get_args(PypotsRival)


class RivalKind(BaseModel):
    """A rival of the catalogue.

    label: its name in tables. paper: where it comes from. reference: its name among `published.REFERENCES`, "" if it
    has no figure there.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    paper: str
    reference: str = ""


RIVALS: Mapping[RivalName, RivalKind] = {
    "seft": RivalKind(label="SeFT", paper="Horn et al. 2020", reference="Set Functions for Time Series"),
    "mtan": RivalKind(label="mTAND-Enc", paper="Shukla and Marlin 2021", reference="mTAN"),
    "ipnets": RivalKind(label="IP-Nets", paper="Shukla and Marlin 2019", reference="Interpolation-Prediction Networks"),
    "raindrop": RivalKind(label="Raindrop", paper="Zhang et al. 2022"),
    "strats": RivalKind(label="STraTS", paper="Tipirneni and Reddy 2022"),
    "brits": RivalKind(label="BRITS", paper="Cao et al. 2018", reference="BRITS"),
    "grud": RivalKind(label="GRU-D", paper="Che et al. 2018"),
    "saits": RivalKind(label="SAITS", paper="Du et al. 2023"),
    "itransformer": RivalKind(label="iTransformer", paper="Liu et al. 2024"),
    "patchtst": RivalKind(label="PatchTST", paper="Nie et al. 2023"),
    "tefn": RivalKind(label="TEFN", paper="Zhan et al. 2025"),
}
"""The rivals by name: networks of this package, then those of PyPOTS."""


def choose_rivals(names: Sequence[str], inputs: Sequence[str]) -> list[Rival]:
    """Return the rivals of some names and inputs, in the catalogue's order, each once.

    The name `all` means every rival. Without inputs, `raw`. Raises UserError for an unknown word, with the near miss,
    and for a network of PyPOTS if that is not installed.
    """
    wanted = dict.fromkeys(name for word in names for name in (RIVALS if word == "all" else (word,)))
    for name in wanted:
        if name not in RIVALS:
            known = ", ".join((*RIVALS, "all"))
            raise UserError(f"unknown rival {name!r}{near_miss(name, RIVALS)}: choose from {known}")
        if name in PYPOTS and find_spec("pypots") is None:
            raise UserError(
                f"rival {name} needs PyPOTS, which is not installed: run `pip install -e '.[pypots]'` in the project's "
                "folder"
            )
    for word in inputs:
        if word not in INPUTS:
            raise UserError(f"unknown input {word!r}{near_miss(word, INPUTS)}: choose from {', '.join(INPUTS)}")
    chosen = product(
        (name for name in RIVALS if name in wanted), (word for word in INPUTS if word in (inputs or INPUTS[:1]))
    )
    return [Rival(name=name, input=word) for name, word in chosen]


def listed_rivals(rivals: Rivals) -> list[Rival]:
    """Return the rivals that params.yaml names, in the catalogue's order.

    Raises UserError if it names none, and for a network of PyPOTS if that is not installed.
    """
    named: dict[RivalInput, Sequence[str]] = {"raw": rivals.raw, "raw+static": rivals.raw_static}
    found = [rival for word, names in named.items() for rival in choose_rivals(names, [word])]
    if not found:
        raise UserError(
            "params.yaml names no rival under rivals.raw or rivals.raw_static: name some there, or with --rival, such "
            "as --rival seft,mtan, or --rival all"
        )
    return sorted(found, key=lambda rival: list(RIVALS).index(rival.name))
