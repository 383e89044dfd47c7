"""Building an imputer by name: as its pretraining begins, or as it was saved."""

import torch

from imputune.data.batches import in_order
from imputune.data.splits import FoldData, Partition
from imputune.imputers.csai import CsaiImputer
from imputune.imputers.interface import Imputer, Representation
from imputune.imputers.plain import PlainImputer
from imputune.imputers.pypots import PypotsImputer
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.weights import load_module
from imputune.protocol.imputers import IMPUTERS
from imputune.runtime.device import choose_device
from imputune.runtime.seeds import generator_for
from imputune.settings.names import ImputerName
from imputune.settings.schema import Params

WEIGHTS = 0  # the purpose of the generator that draws an imputer's weights; see `pretrain` for the others


def csai_sizes(params: Params, variables: int, hours: int) -> CsaiSizes:
    """Return CSAI's sizes for a cohort of so many variables and hours."""
    return CsaiSizes(variables=variables, hours=hours, **params.csai.model_dump())


def new_csai(data: FoldData, params: Params) -> Csai:
    """Return a fold's CSAI as pretraining begins with it, on the CPU: its weights newly drawn, its median gaps."""
    _, hours, variables = data.train.values_NTD.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, data.number, WEIGHTS).initial_seed())
        csai = Csai(csai_sizes(params, variables, hours))
    csai.median_gap_hours_D.copy_(torch.from_numpy(data.median_gap_hours_D))
    return csai


def new_imputer(name: ImputerName, data: FoldData, params: Params) -> Imputer:
    """Return a fold's imputer as pretraining begins with it; UserError where its package is not installed."""
    _, hours, variables = data.train.values_NTD.shape
    if IMPUTERS[name].family == "csai":
        return CsaiImputer(new_csai(data, params), name)
    return _other(name, hours, variables, params, data.number)


def saved_imputer(
    name: ImputerName, shape: tuple[int, ...], params: Params, weights: dict[str, torch.Tensor]
) -> Imputer:
    """Return an imputer as pretraining left it, on the device of params.yaml, for a cohort's shape (N, T, D).

    Raises UserError where its package is not installed.
    """
    _, hours, variables = shape
    if IMPUTERS[name].family == "csai":
        with torch.random.fork_rng(devices=[]):  # building draws weights that are thrown away
            csai = Csai(csai_sizes(params, variables, hours))
        load_module("imputer", csai, weights)
        return CsaiImputer(csai.to(choose_device(params.device)), name)
    imputer = _other(name, hours, variables, params, fold=0)
    if imputer.module is not None:
        load_module("imputer", imputer.module, weights)
    return imputer


def represent(imputer: Imputer, part: Partition, visible_NTD: torch.Tensor | None = None) -> Representation:
    """Return what an imputer makes of all stays of a part, from all observed cells or the visible of them alone.

    Shapes: visible boolean or 0/1 (N, T, D); a Representation of N stays out.
    """
    shown_NTD = part.observed_NTD if visible_NTD is None else visible_NTD
    made = [imputer.represent(part.values_NTD[stays], shown_NTD[stays].float()) for stays in in_order(len(part))]
    hidden = [each.hidden_BH for each in made if each.hidden_BH is not None]
    return Representation(torch.cat([each.imputed_BTD for each in made]), torch.cat(hidden) if hidden else None)


def _other(name: ImputerName, hours: int, variables: int, params: Params, fold: int) -> PlainImputer | PypotsImputer:
    if IMPUTERS[name].family == "plain":
        return PlainImputer(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, fold, WEIGHTS).initial_seed())
        device, batch_size = choose_device(params.device), params.pretrain.batch_size
        return PypotsImputer(name, hours, variables, params.csai.hidden, batch_size, device)
