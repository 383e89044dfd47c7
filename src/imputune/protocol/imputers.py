"""The imputers by name: label, family, whether it has a hidden state, and the package it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, cast, get_args

from imputune.errors import UserError
from imputune.settings.names import CatalogueName, ControlName, ImputerName, check_imputer_name

EXTRA = "pypots"
PACKAGE = "pypots"


@dataclass(frozen=True, kw_only=True)
class ImputerKind:
    """What is known of an imputer before it is built.

    label: its name in tables. family: CSAI and its controls, plain rules, or PyPOTS's networks. has_hidden_state:
    whether it gives a hidden state of a stay; otherwise its representation is the imputed series. source: the paper, or
    what it does. is_registered: whether its fold models, and the classifiers on them, are registered as models.
    """

    label: str
    family: Literal["csai", "plain", "pypots"]
    has_hidden_state: bool = False
    source: str
    is_registered: bool = False


def _csai(label: str, source: str, is_registered: bool = False) -> ImputerKind:
    return ImputerKind(label=label, family="csai", has_hidden_state=True, source=source, is_registered=is_registered)


def _plain(label: str, source: str) -> ImputerKind:
    return ImputerKind(label=label, family="plain", source=source)


def _pypots(label: str, source: str, has_hidden_state: bool = False) -> ImputerKind:
    return ImputerKind(label=label, family="pypots", has_hidden_state=has_hidden_state, source=source)


IMPUTERS: Mapping[CatalogueName, ImputerKind] = {
    "csai": _csai("CSAI", "arXiv 2312.16713", is_registered=True),
    "csai_untrained": _csai("untrained CSAI", "control: CSAI with its initial weights"),
    "csai_shuffled": _csai(
        "CSAI on shuffled stays", "control: CSAI pretrained on stays whose variables come from different patients"
    ),
    "mean": _plain("mean", "the training mean"),
    "locf": _plain("LOCF", "last observation carried forward"),
    "linear": _plain("linear interpolation", "between the neighbours in time"),
    "brits": _pypots("BRITS", "Cao et al. 2018", has_hidden_state=True),
    "grud": _pypots("GRU-D", "Che et al. 2018", has_hidden_state=True),
    "mrnn": _pypots("M-RNN", "Yoon et al. 2019"),
    "saits": _pypots("SAITS", "Du et al. 2023"),
    "csdi": _pypots("CSDI", "Tashiro et al. 2021"),
    "usgan": _pypots("US-GAN", "Miao et al. 2021", has_hidden_state=True),
    "gpvae": _pypots("GP-VAE", "Fortuin et al. 2020"),
}
DEFAULT_IMPUTER: ImputerName = "csai"
"""The imputer of the paper's protocol; commands use it where no other is named."""
CONTROLS: tuple[CatalogueName, ...] = get_args(ControlName)
assert tuple(IMPUTERS) == get_args(CatalogueName)


def known_imputer(word: str) -> ImputerName:
    """Return an imputer's name; raises UserError, with the near miss, where there is none, or it is no own name."""
    try:
        return check_imputer_name(word)
    except ValueError as error:
        raise UserError(str(error)) from None


def is_own(name: ImputerName) -> bool:
    """Say whether an imputer has an own name: CSAI, pretrained on the stays of further cohorts too."""
    return name not in IMPUTERS


def imputer_kind(name: ImputerName) -> ImputerKind:
    """Return what is known of an imputer; one with an own name is like CSAI."""
    if not is_own(name):
        return IMPUTERS[cast(CatalogueName, name)]
    own = name.removeprefix("csai_").replace("_", " ")
    return _csai(f"CSAI ({own})", "CSAI pretrained on stays of further cohorts too", is_registered=True)


def order_of(name: ImputerName) -> tuple[int, str]:
    """Return an imputer's place: those of the catalogue in its order, then own names by the alphabet."""
    names = list[str](IMPUTERS)
    return (len(names), name) if is_own(name) else (names.index(name), "")


def check_installed(name: ImputerName) -> None:
    """Raise UserError, naming the command that installs it, if an imputer's package is not installed."""
    if imputer_kind(name).family == "pypots" and find_spec(PACKAGE) is None:
        raise UserError(
            f"imputer {name} is PyPOTS's {imputer_kind(name).label}, which is not installed: "
            f"run `pip install -e '.[{EXTRA}]'` in the project's folder"
        )
