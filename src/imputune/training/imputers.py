"""Building an imputer by name: as its pretraining begins, or as it was saved."""

from typing import get_args

import torch

from imputune.catalogue import IMPUTERS
from imputune.cells import Cell
from imputune.config import ImputerName, MlpHead, Params
from imputune.data.partitions import FoldData, Partition
from imputune.imputers.csai import CsaiImputer
from imputune.imputers.interface import Imputer, Representation
from imputune.imputers.plain import PlainImputer
from imputune.imputers.pypots import PypotsImputer
from imputune.models.csai import Csai, CsaiSizes
from imputune.training.device import choose_device
from imputune.training.loop import generator_for, in_order
from imputune.training.outputs import load_module

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


def read_by(cell: Cell, representation: Representation, part: Partition, hidden: int) -> tuple[torch.Tensor, ...]:
    """Return what a cell's head, a network, reads of a part's stays.

    A perceptron reads the hidden state, (N, H), or the imputed series, its hours side by side, (N, T * D). A recurrent
    head reads the hidden state, zeros of width `hidden` where the imputer has none, and a series (N, T, D): imputed, or
    raw with 0 in its holes.
    """
    imputed_NTD, hidden_NH = representation.imputed_BTD, representation.hidden_BH
    if cell.head in get_args(MlpHead):
        return (hidden_of(cell, representation) if cell.input == "hidden" else imputed_NTD.flatten(1),)
    if hidden_NH is None:
        hidden_NH = torch.zeros(len(part), hidden)
    return hidden_NH, imputed_NTD if cell.input == "imputed" else part.values_NTD


def hidden_of(cell: Cell, representation: Representation) -> torch.Tensor:
    """Return the hidden states (N, H); ValueError for an imputer that has none, which no cell asks for."""
    if representation.hidden_BH is None:
        raise ValueError(f"{cell.imputer} must have a hidden state for input hidden")
    return representation.hidden_BH


def _other(name: ImputerName, hours: int, variables: int, params: Params, fold: int) -> PlainImputer | PypotsImputer:
    if IMPUTERS[name].family == "plain":
        return PlainImputer(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_for(params.seed, fold, WEIGHTS).initial_seed())
        device, batch_size = choose_device(params.device), params.pretrain.batch_size
        return PypotsImputer(name, hours, variables, params.csai.hidden, batch_size, device)
