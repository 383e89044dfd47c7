"""The words that params.yaml, the command line and stored outputs share, as types."""

from typing import Literal

ControlName = Literal["csai_untrained", "csai_shuffled"]
PlainName = Literal["mean", "locf", "linear"]
PypotsName = Literal["brits", "grud", "mrnn", "saits", "csdi", "usgan", "gpvae"]
ImputerName = Literal["csai", ControlName, PlainName, PypotsName]
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
MlpInput = Literal["hidden", "hidden+static", "hidden+summary", "hidden+static+summary"]
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
DeviceName = Literal["auto", "cpu", "cuda"]
