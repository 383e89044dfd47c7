"""One step of fine-tuning: of the head alone on a frozen imputer, or of head and imputer together."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from imputune.data.batches import batches_in_order, joined
from imputune.data.directions import Directions
from imputune.data.splits import FoldData, Split
from imputune.models.classifier import Classifier
from imputune.models.weights import FlatWeights
from imputune.runtime.seeds import Purpose, generator_for
from imputune.settings.schema import Params
from imputune.training.reconstruction import VariableMasking, mask_batch, reconstruction_step

InputsOfSplits = dict[Split, tuple[torch.Tensor, ...]]
"""What the head reads of every stay of a fold's splits, on the device; see `head_inputs.head_inputs`."""

RecordOfSplits = dict[Split, tuple[torch.Tensor, ...]]
"""The record features (N, R) of every stay of a fold's splits, on the device; no tensor if the head reads none."""


class FrozenTrainer:
    """Trains the head alone, on inputs that were computed once for every stay."""

    def __init__(self, *, head: nn.Module, data: FoldData, inputs: InputsOfSplits, device: torch.device) -> None:
        self.module: nn.Module = head
        self.weights = FlatWeights(self.module)
        self.device = device
        self.inputs = inputs
        self.outcome = {split: split.outcome_N.to(device) for split in (data.train, data.validation, data.test)}

    def loss(self, split: Split, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the head's loss on some stays, and their logits."""
        stays = stays.to(self.device)
        logits_B = self.module(*(each.index_select(0, stays) for each in self.inputs[split]))
        return binary_cross_entropy_with_logits(logits_B, self.outcome[split].index_select(0, stays)), logits_B

    def risk(self, split: Split, module: nn.Module | None = None) -> np.ndarray:
        """Return the risk of each stay of a split, float32 (N,), from the head or from `module`, an average of it."""
        module = (module or self.module).eval()
        inputs = self.inputs[split]
        with torch.no_grad():
            logits = [module(*(each[stays] for each in inputs)) for stays in batches_in_order(len(split))]
            return torch.sigmoid(torch.cat(logits)).cpu().numpy()


class UnfrozenTrainer:
    """Trains the head and the imputer under it.

    Against overfitting, some observed cells are masked, and the imputer goes on learning to fill them: its
    reconstruction loss is added to the head's loss. Record features are those of the whole record: no cell is masked
    in them.
    """

    def __init__(self, classifier: Classifier, data: FoldData, params: Params, *, record: RecordOfSplits) -> None:
        self.classifier = classifier
        self.module: nn.Module = classifier
        self.weights = FlatWeights(
            classifier
        )  # before the step: its CUDA graphs keep the memory addresses of the weights
        self.device = classifier.imputer.device
        self.record = record
        self.settings = params.finetune
        self.masking_rate = torch.tensor(params.finetune.masking_rate)
        self.masks = generator_for(params.seed, data.number, Purpose.FINETUNE_MASKS)
        self.variables = VariableMasking(
            params.finetune.variable_masking,
            generator_for(params.seed, data.number, Purpose.FINETUNE_VARIABLE_MASKS),
        )
        self.reconstruct = reconstruction_step(
            classifier.imputer, data.train, params.finetune.batch_size, params.pretrain, state=classifier.state
        )

    def loss(self, split: Split, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the head's loss plus the weighted reconstruction loss on some stays, and their logits."""
        values, visible, masked = mask_batch(split, stays, self.masking_rate, self.masks, self.device, self.variables)
        reconstruction_loss, state_BS, imputed_BTD = self.reconstruct(values, visible, masked)
        record = tuple(each[stays.to(self.device)] for each in self.record[split])
        logits_B = self.classifier.head(*self.classifier.choose(state_BS, imputed_BTD, values * visible), *record)
        loss = binary_cross_entropy_with_logits(logits_B, split.outcome_N[stays].to(self.device))
        return loss + self.settings.reconstruction_weight * reconstruction_loss, logits_B

    def risk(self, split: Split, module: nn.Module | None = None) -> np.ndarray:
        """Return the risk of each stay, float32 (N,), from the classifier or from `module`, an average of it."""
        classifier = (module or self.module).eval()
        assert isinstance(classifier, Classifier)
        with torch.no_grad():
            return torch.sigmoid(classifier.head(*_inputs(classifier, split), *self.record[split])).cpu().numpy()


def _inputs(classifier: Classifier, split: Split) -> tuple[torch.Tensor, ...]:
    """Return what the head reads of every stay of a split: (N, size), and a series (N, T, D) if it reads one."""
    device = classifier.imputer.device
    with torch.no_grad():
        batches = ((cells.to(device) for cells in split.batch(stays)) for stays in batches_in_order(len(split)))
        return joined((classifier.represent(Directions.of(*cells)) for cells in batches), len(split))
