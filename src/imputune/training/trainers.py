"""What a step of fine-tuning is: the head's alone on a frozen imputer, or the head's and the imputer's together."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from imputune.data.batches import in_order
from imputune.data.directions import Views
from imputune.data.splits import FoldData, Partition
from imputune.models.classifier import Classifier
from imputune.models.weights import FlatWeights
from imputune.runtime.seeds import generator_for
from imputune.settings.schema import Params
from imputune.training.reconstruction import hide_cells, learner

Represented = dict[Partition, tuple[torch.Tensor, ...]]
"""What the head reads of every stay of a fold's parts, on the device; see `imputers.read_by`."""
HIDING = 12  # the purpose of the generator that hides cells; see `finetune` for the others of fine-tuning


class FrozenTrainer:
    """Trains the head alone, on what it reads of each stay, computed once."""

    def __init__(self, head: nn.Module, data: FoldData, represented: Represented, device: torch.device) -> None:
        self.module: nn.Module = head
        self.weights = FlatWeights(self.module)
        self.device = device
        self.represented = represented
        self.died = {part: part.died_N.to(self.device) for part in (data.train, data.validation, data.test)}

    def loss(self, part: Partition, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the head's loss on some stays, and their logits."""
        stays = stays.to(self.device)
        logits = self.module(*(each.index_select(0, stays) for each in self.represented[part]))
        return binary_cross_entropy_with_logits(logits, self.died[part].index_select(0, stays)), logits

    def risk(self, part: Partition, module: nn.Module | None = None) -> np.ndarray:
        """Return the risk of each of a part's stays, from the head or an average of it, float32 (N,)."""
        module = (module or self.module).eval()
        represented = self.represented[part]
        with torch.no_grad():
            logits = [module(*(each[stays] for each in represented)) for stays in in_order(len(part))]
            return torch.sigmoid(torch.cat(logits)).cpu().numpy()


class UnfrozenTrainer:
    """Trains the head and the imputer under it.

    Against overfitting, some observed cells are hidden from both, and the imputer goes on learning to fill them: its
    reconstruction loss is added to the head's.
    """

    def __init__(self, classifier: Classifier, data: FoldData, params: Params) -> None:
        self.module = classifier
        self.weights = FlatWeights(classifier)  # before `learner`, whose graphs keep the places of the weights
        self.device = classifier.imputer.device
        self.settings = params.finetune
        self.hidden_share = torch.tensor(params.finetune.hidden_share)
        self.masks = generator_for(params.seed, data.number, HIDING)
        self.learner = learner(classifier.imputer, data.train, params.finetune.batch_size, params.pretrain)

    def loss(self, part: Partition, stays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss on some stays, the head's and the weighted reconstruction's, and their logits."""
        values, visible, hidden = hide_cells(part, stays, self.hidden_share, self.masks, self.device)
        reconstruction, last_BH, imputed_BTD = self.learner(values, visible, hidden)
        logits = self.module.head(*self.module.choose(last_BH, imputed_BTD, values * visible))
        loss = binary_cross_entropy_with_logits(logits, part.died_N[stays].to(self.device))
        return loss + self.settings.reconstruction_weight * reconstruction, logits

    def risk(self, part: Partition, module: nn.Module | None = None) -> np.ndarray:
        """Return the risk of each of a part's stays, from the classifier or an average of it, float32 (N,)."""
        classifier = (module or self.module).eval()
        assert isinstance(classifier, Classifier)
        with torch.no_grad():
            return torch.sigmoid(classifier.head(*_represent(classifier, part))).cpu().numpy()


Trainer = FrozenTrainer | UnfrozenTrainer


def _represent(classifier: Classifier, part: Partition) -> tuple[torch.Tensor, ...]:
    """Return what the head reads of every stay of a part, (N, H) and where it reads one (N, T, D), without gradient."""
    device = classifier.imputer.device
    with torch.no_grad():
        batches = ((cells.to(device) for cells in part.batch(stays)) for stays in in_order(len(part)))
        represented = [classifier.represent(Views.read(*cells)) for cells in batches]
    return tuple(torch.cat(each) for each in zip(*represented, strict=True))
