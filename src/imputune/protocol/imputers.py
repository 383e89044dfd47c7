"""The imputers by name: what each is called, what it hands to a head, and what has to be installed for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, cast, get_args

from imputune.errors import UserError, near_miss
from imputune.settings.names import ImputerName

EXTRA = "pypots"
PACKAGE = "pypots"


@dataclass(frozen=True)
class ImputerKind:
    """What is known of an imputer before it is built.

    label: its name in tables. family: CSAI and its controls; plain rules; or PyPOTS's networks. hidden: whether it
    hands on a hidden state of a stay; the representation of one that has none is the imputed series. source: where it
    is described.
    """

    label: str
    family: Literal["csai", "plain", "pypots"]
    hidden: bool
    source: str


IMPUTERS: Mapping[ImputerName, ImputerKind] = {
    "csai": ImputerKind("CSAI", "csai", True, "arXiv 2312.16713"),
    "csai_untrained": ImputerKind("untrained CSAI", "csai", True, "control: CSAI with the weights it begins with"),
    "csai_shuffled": ImputerKind(
        "CSAI on shuffled stays",
        "csai",
        True,
        "control: CSAI pretrained on stays whose variables come from different patients",
    ),
    "mean": ImputerKind("mean", "plain", False, "the training mean"),
    "locf": ImputerKind("LOCF", "plain", False, "last observation carried forward"),
    "linear": ImputerKind("linear interpolation", "plain", False, "between the neighbours in time"),
    "brits": ImputerKind("BRITS", "pypots", True, "Cao et al. 2018"),
    "grud": ImputerKind("GRU-D", "pypots", True, "Che et al. 2018"),
    "mrnn": ImputerKind("M-RNN", "pypots", False, "Yoon et al. 2019"),
    "saits": ImputerKind("SAITS", "pypots", False, "Du et al. 2023"),
    "csdi": ImputerKind("CSDI", "pypots", False, "Tashiro et al. 2021"),
    "usgan": ImputerKind("US-GAN", "pypots", True, "Miao et al. 2021"),
    "gpvae": ImputerKind("GP-VAE", "pypots", False, "Fortuin et al. 2020"),
}
PRETRAINED: ImputerName = "csai"
"""The imputer of the paper's protocol, which a command means where it is told of no other."""
assert tuple(IMPUTERS) == get_args(ImputerName)


def known_imputer(word: str) -> ImputerName:
    """Return the imputer of that name; raises UserError, with the near miss, where there is none."""
    if word not in IMPUTERS:
        raise UserError(f"unknown imputer {word!r}{near_miss(word, IMPUTERS)}: choose from {', '.join(IMPUTERS)}")
    return cast(ImputerName, word)


def check_installed(name: ImputerName) -> None:
    """Raise UserError, naming the command that installs it, where an imputer's package is not there."""
    if IMPUTERS[name].family == "pypots" and find_spec(PACKAGE) is None:
        raise UserError(
            f"imputer {name} is PyPOTS's {IMPUTERS[name].label}, which is not installed: "
            f"run `pip install -e '.[{EXTRA}]'` in the project's folder"
        )


CONTROLS: tuple[ImputerName, ...] = ("csai_untrained", "csai_shuffled")
