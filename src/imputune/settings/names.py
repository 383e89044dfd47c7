"""The literals of params.yaml: imputers, heads, inputs, modes, schedules, masking patterns."""

from typing import Literal

ControlName = Literal["csai_untrained", "csai_shuffled"]
PlainName = Literal["mean", "locf", "linear"]
PypotsName = Literal["brits", "grud", "mrnn", "saits", "csdi", "usgan", "gpvae"]
OtherImputer = Literal[ControlName, PlainName, PypotsName]
ImputerName = Literal["csai", OtherImputer]
Hiding = Literal["uniform", "non_uniform", "hours", "onward", "blocks"]
Mode = Literal["frozen", "unfrozen"]
MlpHead = Literal["mlp2", "mlp5"]
RecurrentHead = Literal["lstm", "gru"]
ShallowHead = Literal["xgboost", "svm"]
Head = Literal[MlpHead, RecurrentHead, ShallowHead]
MlpInput = Literal["hidden"]
RecurrentInput = Literal["imputed", "raw"]
ShallowInput = Literal["imputed", "hidden", "summary"]
Input = Literal[MlpInput, RecurrentInput, ShallowInput]
NeuralSchedule = Literal["optuna", "cyclic", "plateau"]
ShallowSchedule = Literal["none"]
ScheduleName = Literal[NeuralSchedule, ShallowSchedule]
SearchScope = Literal["first_fold", "each_fold"]
DeviceName = Literal["auto", "cpu", "cuda"]
