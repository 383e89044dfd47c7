"""Building an imputer by name: with the weights that pretraining starts from, or with saved weights."""

import torch

from imputune.data.batches import batches_in_order, joined
from imputune.data.splits import FoldData, Split
from imputune.imputers.csai import CsaiImputer
from imputune.imputers.interface import Imputer, Representation
from imputune.imputers.plain import PlainImputer
from imputune.imputers.pypots import PypotsImputer, PypotsSizes
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.weights import load_module
from imputune.protocol.imputers import imputer_kind
from imputune.runtime.device import choose_device
from imputune.runtime.seeds import Purpose, generator_for
from imputune.settings.names import ImputerName, StateName
from imputune.settings.schema import Params


def csai_sizes(params: Params, variables: int, hours: int, bin_hours: int = 1) -> CsaiSizes:
    """Return CSAI's sizes for a cohort with so many variables, and so many bins of `bin_hours` each."""
    return CsaiSizes(variables=variables, hours=hours, bin_hours=bin_hours, **params.csai.model_dump())


def new_csai(data: FoldData, params: Params) -> Csai:
    """Return CSAI with the initial weights and the median gaps of a fold, on the CPU."""
    _, hours, variables = data.train.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, data.number, Purpose.IMPUTER_WEIGHTS).initial_seed())
        csai = Csai(csai_sizes(params, variables, hours, data.bin_hours))
    csai.median_gap_hours_D.copy_(torch.from_numpy(data.median_gap_hours_D))
    return csai


def new_imputer(name: ImputerName, data: FoldData, params: Params) -> Imputer:
    """Return an imputer with the initial weights of a fold; UserError if its package is not installed."""
    if imputer_kind(name).family == "csai":
        return CsaiImputer(new_csai(data, params), name)
    return _new_other(name, data.train.shape, params, data.number)


def saved_imputer(
    name: ImputerName,
    shape: tuple[int, ...],
    params: Params,
    weights: dict[str, torch.Tensor],
    state: StateName = "hidden",
    *,
    bin_hours: int = 1,
) -> Imputer:
    """Return a pretrained imputer, on the device of params.yaml, for a cohort of shape (N, T, D).

    bin_hours: the length of its bins. Raises UserError if its package is not installed, ValueError for a
    `state` that it does not have.
    """
    _, hours, variables = shape
    if imputer_kind(name).family == "csai":
        with torch.random.fork_rng(devices=[]):  # building draws initial weights, which are not used
            csai = Csai(csai_sizes(params, variables, hours, bin_hours))
        load_module("imputer", csai, weights)
        return CsaiImputer(csai.to(choose_device(params.device)), name, state)
    if state != "hidden":
        raise ValueError(f"{name} has no state {state!r}")
    imputer = _new_other(name, shape, params, fold=0)
    if imputer.module is not None:
        load_module("imputer", imputer.module, weights)
    return imputer


def represent(imputer: Imputer, split: Split, visible_NTD: torch.Tensor | None = None) -> Representation:
    """Return an imputer's representation of all stays of a split.

    The imputer sees the cells where `visible_NTD`, boolean or 0/1 (N, T, D), is true; without it, all observed cells.
    """

    def represented(stays: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values_BTD, observed_BTD = split.batch(stays)
        batch = imputer.represent(values_BTD, observed_BTD if visible_NTD is None else visible_NTD[stays].float())
        return (batch.imputed_BTD,) if batch.hidden_BH is None else (batch.imputed_BTD, batch.hidden_BH)

    return Representation(*joined(map(represented, batches_in_order(len(split))), len(split)))


def _new_other(name: ImputerName, shape: tuple[int, ...], params: Params, fold: int) -> PlainImputer | PypotsImputer:
    """Return an imputer that is not of the CSAI family, for a cohort of shape (N, T, D)."""
    if imputer_kind(name).family == "plain":
        return PlainImputer(name)
    _, hours, variables = shape
    section = getattr(params.pypots, name, None)  # BRITS, GRU-D, M-RNN and US-GAN have none
    sizes = PypotsSizes(
        hours=hours,
        variables=variables,
        hidden_size=params.csai.hidden_size,
        network=section.model_dump() if section else {},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, fold, Purpose.IMPUTER_WEIGHTS).initial_seed())
        return PypotsImputer(name, sizes, batch_size=params.pretrain.batch_size, device=choose_device(params.device))
