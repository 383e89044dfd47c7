"""PyPOTS's imputers: trained by its `fit`, used through its `predict`, with the hidden state of the recurrent ones.

PyPOTS is an optional extra; it is imported when one of its imputers is built. Its Adam trains at a rate of 0.001.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from imputune.errors import UserError
from imputune.imputers.interface import Representation, checked_representation
from imputune.models.faster_pypots import speed_up
from imputune.models.quiet_pypots import quiet
from imputune.protocol.imputers import check_installed
from imputune.settings.names import ImputerName


@dataclass(frozen=True, kw_only=True)
class PypotsSizes:
    """The numbers that fix a network's shape.

    hours, variables: of the cohort. hidden_size: of the recurrent networks; the others ignore it. network: sizes of one
    network under PyPOTS's own names, see `settings.schema.Pypots`.
    """

    hours: int
    variables: int
    hidden_size: int
    network: Mapping[str, int | tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class _Network:
    """One of PyPOTS's networks.

    class_name: its class in pypots.imputation. is_recurrent: whether it takes a hidden size. hidden_module: the
    submodule whose output contains the hidden state (B, H), "" if it has none. hidden_of: takes it from that output.
    validates: whether scoring validation stays after every epoch is affordable; CSDI needs 50 passes for each stay.
    derived_sizes: sizes that follow from those in params.yaml.
    """

    class_name: str
    is_recurrent: bool = False
    hidden_module: str = ""
    hidden_of: Callable[[tuple[torch.Tensor, ...]], torch.Tensor] = lambda output: output[1]
    validates: bool = True
    derived_sizes: Callable[[Mapping[str, Any]], dict[str, int]] = lambda sizes: {}


def _mean_of_directions(output: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the mean of both directions' last hidden states from the output of PyPOTS's BackboneBRITS."""
    return (output[3] + output[4]) / 2


NETWORKS: Mapping[ImputerName, _Network] = {
    "brits": _Network(class_name="BRITS", is_recurrent=True, hidden_module="model", hidden_of=_mean_of_directions),
    "grud": _Network(class_name="GRUD", is_recurrent=True, hidden_module="backbone"),
    "mrnn": _Network(class_name="MRNN", is_recurrent=True),
    "saits": _Network(class_name="SAITS", derived_sizes=lambda sizes: {"d_model": sizes["n_heads"] * sizes["d_k"]}),
    "csdi": _Network(class_name="CSDI", validates=False),
    "usgan": _Network(
        class_name="USGAN", is_recurrent=True, hidden_module="backbone.generator", hidden_of=_mean_of_directions
    ),
    "gpvae": _Network(class_name="GPVAE"),
}
GRUD_MEAN = 3  # position of the empirical mean among the arguments of PyPOTS's BackboneGRUD


class PypotsImputer:
    """One of PyPOTS's imputers.

    Shapes: see `Imputer.represent`. GRU-D decays to the training mean, 0. PyPOTS would use the mean of the stays in the
    batch, and a stay's imputation would then depend on the other stays. CSDI draws noise, seeded for each call, so its
    imputation does depend on a stay's position in the batch.

    Raises UserError if PyPOTS is not installed.
    """

    module: nn.Module

    def __init__(self, name: ImputerName, sizes: PypotsSizes, *, batch_size: int, device: torch.device) -> None:
        check_installed(name)
        self.name, self.network = name, NETWORKS[name]
        recurrent = {"rnn_hidden_size": sizes.hidden_size} if self.network.is_recurrent else {}
        with quiet():
            import pypots.imputation

            build = getattr(pypots.imputation, self.network.class_name)
            self.model = build(
                n_steps=sizes.hours,
                n_features=sizes.variables,
                **recurrent,
                **sizes.network,
                **self.network.derived_sizes(sizes.network),
                batch_size=batch_size,
                epochs=1,
                device=str(device),
                verbose=False,
            )
            speed_up(self.model.model)
        self.module = self.model.model

    @property
    def validates(self) -> bool:
        """Whether its validation error is computed after every epoch; otherwise the last epoch is kept."""
        return self.network.validates

    def train_epoch(self, nan_NTD: np.ndarray, seed: int) -> float:
        """Train for one epoch on stays (N, T, D) with NaN in the missing cells; return PyPOTS's mean training loss.

        Raises UserError with PyPOTS's error message if it fails.
        """
        with quiet() as log, _seeded(seed):
            try:
                self.model.fit({"X": nan_NTD})
            except (RuntimeError, ValueError) as error:
                cause = " ".join((log.errors or [str(error)])[-1].split())
                raise UserError(f"PyPOTS could not train imputer {self.name} ({cause}): leave it out") from error
        gc.collect()  # PyPOTS leaves its copies of the stays in reference cycles, which Python would keep for epochs
        return float(self.model.best_loss)

    def represent(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Representation:
        """Impute by PyPOTS's `predict`; see `Imputer.represent`. CSDI draws one sample."""
        nan_BTD = torch.where(observed_BTD > 0, values_BTD, torch.nan).numpy()
        with quiet(), _seeded(0), self._collecting_hidden() as hidden:
            estimate = torch.as_tensor(self.model.predict({"X": nan_BTD})["imputation"])
        if estimate.dim() == 4:  # (B, samples, T, D) with one sample
            estimate = estimate[:, 0]
        hidden_BH = torch.cat(hidden).cpu() if hidden else None
        return checked_representation(self.name, values_BTD, observed_BTD, estimate, hidden_BH)

    @contextlib.contextmanager
    def _collecting_hidden(self) -> Iterator[list[torch.Tensor]]:
        """Collect the hidden states of each batch that the network imputes, and give GRU-D the training mean."""
        hidden: list[torch.Tensor] = []
        if not self.network.hidden_module:
            yield hidden
            return
        backbone = self.module.get_submodule(self.network.hidden_module)
        hooks = [backbone.register_forward_hook(lambda _, __, output: hidden.append(self.network.hidden_of(output)))]
        if self.name == "grud":
            hooks.append(backbone.register_forward_pre_hook(_with_training_mean))
        try:
            yield hidden
        finally:
            for hook in hooks:
                hook.remove()


def _with_training_mean(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros_like(each) if place == GRUD_MEAN else each for place, each in enumerate(arguments))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of PyTorch and NumPy for the block, and restore their states after it."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(state)
