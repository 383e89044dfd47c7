"""An imputer's parameters, by the names in params.yaml, as the settings that training reads."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field, ValidationError

from imputune.api.values import ValuesError
from imputune.settings.imputer_sections import Csai, Masking, Pretrain, Scaling
from imputune.settings.names import DeviceName
from imputune.settings.schema import Budget, Params
from imputune.settings.section import Count, Fraction, ParamsSection, Seed

DATASET = "array"
MASKING = "masking_"  # masking.rate of params.yaml is the parameter masking_rate


class _Rest(ParamsSection):
    """The parameters that stand in no section of an imputer."""

    epochs: Count
    validation_fraction: Fraction
    seed: Seed
    device: DeviceName
    verbose: bool = Field(strict=False)  # 1 is usual too


def training_settings(parameters: Mapping[str, object]) -> Params:
    """Return the settings that training and building CSAI read; the other sections of Params are not there.

    Raises ValuesError, naming the parameter, for a wrong type or range, or a GPU that is not there.
    """
    values = {name: plain(value) for name, value in parameters.items()}
    try:
        rest = _Rest.model_validate(_of(_Rest, values))
        sections: Any = {
            "csai": Csai.model_validate(_of(Csai, values)),
            "pretrain": Pretrain.model_validate(_of(Pretrain, values)),
            "scaling": Scaling.model_validate(_of(Scaling, values)),
            "masking": Masking.model_validate(_of(Masking, values, MASKING)),
        }
    except ValidationError as error:
        raise ValuesError(_first_problem(error)) from None
    if rest.device == "cuda" and not torch.cuda.is_available():
        raise ValuesError("device = 'cuda', but PyTorch finds no GPU here: set device to 'auto' or 'cpu'")
    return Params.model_construct(
        dataset=DATASET,
        seed=rest.seed,
        device=rest.device,
        budget={DATASET: Budget.model_construct(pretrain_epochs=rest.epochs)},
        **sections,
    )


def plain(value: Any) -> Any:
    """Return a number of NumPy's as Python's, as searches over parameters give them; everything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _of(section: type[ParamsSection], parameters: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return the parameters that belong to a section, by the section's names."""
    return {name: parameters[prefix + name] for name in section.model_fields if prefix + name in parameters}


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    if not problem["loc"]:  # a rule on several parameters
        return str(problem["msg"]).removeprefix("Value error, ")
    name = str(problem["loc"][0])
    if error.title == Masking.__name__:
        name = MASKING + name
    if problem["type"] == "missing":
        return f"parameter {name} is missing: give all parameters"
    return f"{name} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
