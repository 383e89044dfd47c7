"""The words that params.yaml, the command line and stored outputs share, as types."""

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from imputune.errors import near_miss

OWN_NAME = re.compile(r"csai(_[a-z0-9]+)+")
MISSPELT = 0.85  # likeness from which on an own name counts as a misspelt one of the catalogue


def check_imputer_name(word: str) -> str:
    """Return a name of the catalogue, or an own name; raises ValueError, with the near miss, for any other word."""
    catalogue = get_args(CatalogueName)
    if word in catalogue:
        return word
    if not word.startswith("csai_") or near_miss(word, catalogue, MISSPELT):
        raise ValueError(f"unknown imputer {word!r}{near_miss(word, catalogue)}: choose from {', '.join(catalogue)}")
    return check_own_name(word)


def check_own_name(word: str) -> str:
    """Return a name that a user may give to an imputer; raises ValueError for any other.

    It is csai_ and then lower-case letters and digits, in words joined by _, and resembles no name of the catalogue.
    """
    if not OWN_NAME.fullmatch(word):
        raise ValueError(
            f"an imputer's own name is csai_ with lower-case letters and digits, such as csai_more: got {word!r}"
        )
    if word in get_args(CatalogueName):
        raise ValueError(f"the name {word!r} is taken by another imputer: choose another name, such as csai_more")
    if near := near_miss(word, get_args(CatalogueName), MISSPELT):
        raise ValueError(f"an imputer's own name must not resemble another imputer's{near}: got {word!r}")
    return word


ControlName = Literal["csai_untrained", "csai_shuffled"]
PlainName = Literal["mean", "locf", "linear"]
PypotsName = Literal["brits", "grud", "mrnn", "saits", "csdi", "usgan", "gpvae"]
CatalogueName = Literal["csai", ControlName, PlainName, PypotsName]
ImputerName = Annotated[str, AfterValidator(check_imputer_name)]
"""A name of the catalogue, or an own name: of CSAI that was pretrained on further cohorts too."""
EngineName = Literal["local", "ray"]
RandomPattern = Literal["uniform", "non_uniform"]
MaskingPattern = Literal[RandomPattern, "hours", "onward", "blocks"]
SplitName = Literal["train", "validation", "test"]
Mode = Literal["frozen", "unfrozen"]
MlpHead = Literal["mlp2", "mlp5"]
RecurrentHead = Literal["lstm", "gru"]
NeuralHead = Literal[MlpHead, RecurrentHead]
NonNeuralHead = Literal["xgboost", "svm"]
BlendHead = Literal["blend"]
Head = Literal[NeuralHead, NonNeuralHead, BlendHead]
FurtherState = Literal["hidden_both", "hidden_pooled"]
StateName = Literal["hidden", FurtherState]
FurtherInput = Literal[
    "hidden_both",
    "hidden_both+static",
    "hidden_both+static+summary",
    "hidden_pooled",
    "hidden_pooled+static",
    "hidden_pooled+static+summary",
]
MlpInput = Literal["hidden", "hidden+static", "hidden+summary", "hidden+static+summary", FurtherInput]
SeriesInput = Literal["imputed", "imputed+static", "imputed+static+summary"]
RecurrentInput = Literal[
    "imputed", "raw", "imputed+static", "imputed+static+summary", "raw+static", "raw+static+summary"
]
NonNeuralInput = Literal[
    "imputed",
    "hidden",
    "summary",
    "imputed+static",
    "hidden+static",
    "hidden+static+summary",
    "summary+static",
    FurtherInput,
]
NeuralInput = Literal[MlpInput, RecurrentInput]
BlendInput = Literal["members"]
Input = Literal[NeuralInput, NonNeuralInput, BlendInput]
NeuralSchedule = Literal["optuna", "cyclic", "plateau"]
NonNeuralSchedule = Literal["none"]
ScheduleName = Literal[NeuralSchedule, NonNeuralSchedule]
BlendScale = Literal["calibrated", "ranks"]
BlendWeights = Literal["equal", "cross_fitted"]
SearchScope = Literal["first_fold", "each_fold"]
ProtocolName = Literal["cross_validation", "single_split", "external"]
OwnRival = Literal["seft", "mtan", "ipnets", "raindrop", "strats"]
PypotsRival = Literal["brits", "grud", "saits", "itransformer", "patchtst", "tefn"]
RivalName = Literal[OwnRival, PypotsRival]
RivalInput = Literal["raw", "raw+static"]
DeviceName = Literal["auto", "cpu", "cuda"]
