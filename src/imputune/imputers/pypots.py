"""PyPOTS's imputers: trained by its own `fit`, read through its `predict`, with the hidden state where there is one.

PyPOTS is an optional extra, imported when one of its imputers is built. Widths are those of its own examples for hourly
ICU records, hidden states as wide as CSAI's; the optimiser is its Adam at 0.001.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from imputune.errors import UserError
from imputune.imputers.interface import Representation, sealed
from imputune.protocol.imputers import check_installed
from imputune.settings.names import ImputerName


@dataclass(frozen=True)
class _Network:
    """How to build one of PyPOTS's imputers, and where its hidden state (B, H) comes out.

    place: the submodule of its core whose output holds it; "" where there is none. state: takes it from that output.
    validates: whether scoring validation stays after every epoch is affordable; a diffusion takes 50 passes for each.
    """

    name: str
    widths: dict[str, Any]
    place: str = ""
    state: Callable[[tuple[torch.Tensor, ...]], torch.Tensor] = lambda output: output[1]
    validates: bool = True


def _both_readings(output: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the mean of both directions' last hidden states, of what PyPOTS's BackboneBRITS gives."""
    return (output[3] + output[4]) / 2


NETWORKS: dict[ImputerName, _Network] = {
    "brits": _Network("BRITS", {}, "model", _both_readings),
    "grud": _Network("GRUD", {}, "backbone"),
    "mrnn": _Network("MRNN", {}),
    "saits": _Network("SAITS", {"n_layers": 2, "d_model": 256, "n_heads": 4, "d_k": 64, "d_v": 64, "d_ffn": 128}),
    "csdi": _Network(
        "CSDI",
        {"n_layers": 4, "n_heads": 8, "n_channels": 64}
        | {"d_time_embedding": 128, "d_feature_embedding": 16, "d_diffusion_embedding": 128},
        validates=False,
    ),
    "usgan": _Network("USGAN", {}, "backbone.generator", _both_readings),
    "gpvae": _Network(
        "GPVAE",
        {"latent_size": 35, "encoder_sizes": (128, 128), "decoder_sizes": (256, 256), "window_size": 24},
    ),
}
RECURRENT = ("brits", "grud", "mrnn", "usgan")
GRUD_MEAN = 3  # the place of the empirical mean among the arguments of PyPOTS's BackboneGRUD


class PypotsImputer:
    """One of PyPOTS's imputers.

    Shapes: see `Imputer.represent`. The mean that GRU-D decays to is the training mean, 0: PyPOTS would take that of
    the stays at hand, so that a stay's imputation would depend on who stands beside it. CSDI draws noise, seeded by
    the call: its imputation does depend on a stay's place in the batch.

    Raises UserError where PyPOTS is not installed.
    """

    module: nn.Module

    def __init__(
        self, name: ImputerName, hours: int, variables: int, hidden: int, batch_size: int, device: torch.device
    ) -> None:
        check_installed(name)
        self.name, self.network = name, NETWORKS[name]
        widths = self.network.widths | ({"rnn_hidden_size": hidden} if name in RECURRENT else {})
        with _quiet():
            import pypots.imputation

            build = getattr(pypots.imputation, self.network.name)
            self.model = build(
                n_steps=hours,
                n_features=variables,
                **widths,
                batch_size=batch_size,
                epochs=1,
                device=str(device),
                verbose=False,
            )
        self.module = self.model.model

    @property
    def validates(self) -> bool:
        """Whether its validation error is looked at after every epoch, or after the last alone."""
        return self.network.validates

    def train_epoch(self, holed_NTD: np.ndarray, seed: int) -> float:
        """Train for one epoch on stays with NaN in their holes; return PyPOTS's mean training loss.

        Raises UserError, with PyPOTS's own words, when it fails.
        """
        with _quiet() as log, _seeded(seed):
            try:
                self.model.fit({"X": holed_NTD})
            except (RuntimeError, ValueError) as error:
                cause = " ".join((log.errors or [str(error)])[-1].split())
                raise UserError(f"PyPOTS could not train imputer {self.name} ({cause}): leave it out") from error
        return float(self.model.best_loss)

    def represent(self, values_BTD: torch.Tensor, observed_BTD: torch.Tensor) -> Representation:
        """Impute by PyPOTS's `predict`; see `Imputer.represent`. CSDI draws one sample."""
        holed_BTD = torch.where(observed_BTD > 0, values_BTD, torch.nan).numpy()
        with _quiet(), _seeded(0), self._hooked() as states:
            estimate = torch.as_tensor(self.model.predict({"X": holed_BTD})["imputation"])
        if estimate.dim() == 4:  # (B, samples, T, D), of one sample
            estimate = estimate[:, 0]
        hidden_BH = torch.cat(states).cpu() if states else None
        return sealed(self.name, values_BTD, observed_BTD, estimate, hidden_BH)

    @contextlib.contextmanager
    def _hooked(self) -> Iterator[list[torch.Tensor]]:
        """Collect the hidden states that pass by, batch by batch, and give GRU-D the training mean."""
        states: list[torch.Tensor] = []
        if not self.network.place:
            yield states
            return
        backbone = self.module.get_submodule(self.network.place)
        hooks = [backbone.register_forward_hook(lambda _, __, output: states.append(self.network.state(output)))]
        if self.name == "grud":
            hooks.append(backbone.register_forward_pre_hook(_with_training_mean))
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()


def _with_training_mean(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros_like(each) if place == GRUD_MEAN else each for place, each in enumerate(arguments))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from PyTorch's and NumPy's global generators as from this seed, and put them back as they were."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(state)


class _Log(logging.Handler):
    """Keeps the errors that PyPOTS logs, where it raises no more than that there was one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an error's text."""
        self.errors.append(record.getMessage())


@contextlib.contextmanager
def _quiet() -> Iterator[_Log]:
    """Keep PyPOTS's banner, log and its libraries' warnings from the user's screen; give the errors it logs."""
    logger, log = logging.getLogger("PyPOTS running log"), _Log()
    earlier, logger.handlers = logger.handlers, [log]
    unseen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # with an encoding, which its banner asks for
    with contextlib.redirect_stdout(unseen), contextlib.redirect_stderr(unseen), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield log
        finally:
            logger.handlers = earlier
