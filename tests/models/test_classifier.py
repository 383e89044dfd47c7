from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from imputune.data.directions import Directions
from imputune.models.classifier import Classifier
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.heads import HEAD_BUILDERS, HeadSizes, Mlp

Record = tuple[torch.Tensor, torch.Tensor]
SIZES = CsaiSizes(variables=5, hours=12, hidden_size=6, channels=8, attention_heads=2, feedforward=10)
HEAD_SIZES = HeadSizes(input_size=6, variables=5, mlp_width=16)


def build(freeze_imputer: bool) -> Classifier:
    """Build a small classifier, the same for both modes."""
    torch.manual_seed(0)
    return Classifier(Csai(SIZES), Mlp(HEAD_SIZES), freeze_imputer=freeze_imputer)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of all weights and buffers."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def train(classifier: Classifier, record: Record, weight_decay: float) -> None:
    """Take three steps with an optimizer over all parameters, trainable or not."""
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=0.01, weight_decay=weight_decay)
    outcome_N = torch.tensor([0.0, 1.0, 1.0, 0.0])
    for _ in range(3):
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(classifier(Directions.of(*record)), outcome_N).backward()
        optimizer.step()


def test_frozen_moves_the_head_alone(make_record: Callable[..., Record]) -> None:
    """Frozen, the imputer is bit-equal after training and every weight of the head has moved."""
    classifier = build(freeze_imputer=True)
    before = state(classifier)
    train(classifier, make_record(4), weight_decay=0.1)
    for name, after in classifier.state_dict().items():
        assert torch.equal(after, before[name]) == name.startswith("imputer."), name


def test_unfrozen_moves_both(make_record: Callable[..., Record]) -> None:
    """Unfrozen, every weight of the imputer moves by its gradient as well; its buffers do not."""
    classifier = build(freeze_imputer=False)
    before = state(classifier)
    buffers = {name for name, _ in classifier.named_buffers()}
    train(classifier, make_record(4), weight_decay=0.0)
    for name, after in classifier.state_dict().items():
        assert torch.equal(after, before[name]) == (name in buffers), name


@pytest.mark.parametrize("freeze_imputer", [True, False])
def test_trainable_parameters(freeze_imputer: bool) -> None:
    """Frozen, the head's weights alone are trainable; unfrozen, all are."""
    for name, parameter in build(freeze_imputer).named_parameters():
        assert parameter.requires_grad == (name.startswith("head.") or not freeze_imputer), name


def test_unfreezing_an_imputer_that_was_frozen() -> None:
    """An imputer that was frozen before is trainable in an unfrozen classifier."""
    imputer = build(freeze_imputer=True).imputer
    assert all(p.requires_grad for p in Classifier(imputer, Mlp(HEAD_SIZES), freeze_imputer=False).parameters())


def test_both_modes_start_from_the_same_logits(make_record: Callable[..., Record]) -> None:
    """Freezing changes which weights are trainable, not the predictions."""
    directions = Directions.of(*make_record(4))
    logits = build(freeze_imputer=True)(directions), build(freeze_imputer=False)(directions)
    torch.testing.assert_close(*logits, rtol=0, atol=1e-6)  # the last bit may depend on the memory address


@pytest.mark.parametrize("stays", [1, 4])
def test_the_head_reads_the_last_representation(make_record: Callable[..., Record], stays: int) -> None:
    """A perceptron reads the mean of both directions' final hidden states, (B, H), and gives (B,)."""
    classifier, directions = build(freeze_imputer=True), Directions.of(*make_record(stays))
    hidden_KBTH = classifier.imputer(directions).hidden_KBTH
    last_BH = (hidden_KBTH[0, :, -1] + hidden_KBTH[1, :, -1]) / 2
    [read_BH] = classifier.represent(directions)
    assert read_BH.shape == (stays, SIZES.hidden_size)
    torch.testing.assert_close(read_BH, last_BH, rtol=0, atol=1e-7)
    torch.testing.assert_close(classifier(directions), classifier.head(last_BH), rtol=0, atol=1e-6)


def test_stay_alone_has_the_same_logit_as_in_a_batch(make_record: Callable[..., Record]) -> None:
    """A stay's logit does not depend on the other stays of its batch."""
    classifier, (values, observed) = build(freeze_imputer=True).eval(), make_record(6)
    logits = classifier(Directions.of(values, observed))
    alone = torch.cat([classifier(Directions.of(values[[i]], observed[[i]])) for i in range(6)])
    torch.testing.assert_close(alone, logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("reads", ["imputed", "raw"])
def test_recurrent_heads_read_the_chosen_series(make_record: Callable[..., Record], name: str, reads: str) -> None:
    """Beside the hidden state, the head reads the imputed series, or the observed values with 0 where missing."""
    torch.manual_seed(0)
    classifier = Classifier(Csai(SIZES), HEAD_BUILDERS[name](HEAD_SIZES), freeze_imputer=True, input=reads)
    values, observed = make_record(4)
    directions = Directions.of(values, observed)
    last_BH, series_BTD = classifier.represent(directions)
    reconstruction = classifier.imputer(directions)
    expected = reconstruction.imputed_BTD if reads == "imputed" else values.masked_fill(observed == 0, 0.0)
    torch.testing.assert_close(series_BTD, expected, rtol=0, atol=0)
    torch.testing.assert_close(last_BH, reconstruction.last_BH, rtol=0, atol=0)
    torch.testing.assert_close(classifier(directions), classifier.head(last_BH, series_BTD))


@pytest.mark.parametrize(("reads", "size"), [("hidden_both", 12), ("hidden_pooled", 24)])
@pytest.mark.parametrize("freeze_imputer", [True, False])
def test_perceptrons_read_further_states(
    make_record: Callable[..., Record], reads: str, size: int, freeze_imputer: bool
) -> None:
    """The head gets the state alone; frozen, the imputer stays bit-equal, and unfrozen, each of its weights moves."""
    torch.manual_seed(0)
    head = Mlp(HeadSizes(input_size=size, variables=5, mlp_width=16))
    classifier = Classifier(Csai(SIZES), head, freeze_imputer=freeze_imputer, input=reads)
    directions = Directions.of(*make_record(4))
    [read_BS] = classifier.represent(directions)
    assert read_BS.shape == (4, size)
    torch.testing.assert_close(read_BS, classifier.imputer(directions).state(reads), rtol=0, atol=0)
    before, buffers = state(classifier), {name for name, _ in classifier.named_buffers()}
    train(classifier, make_record(4), weight_decay=0.0)
    for name, after in classifier.state_dict().items():
        stays = name.startswith("imputer.") if freeze_imputer else name in buffers
        assert torch.equal(after, before[name]) == stays, name


@pytest.mark.parametrize("reads", ["imputed", "raw"])
def test_unfrozen_recurrent_head_moves_the_imputer(make_record: Callable[..., Record], reads: str) -> None:
    """The loss of a recurrent head trains the imputer, also if it is connected through the hidden state alone."""
    torch.manual_seed(0)
    head = HEAD_BUILDERS["gru"](HEAD_SIZES)
    classifier = Classifier(Csai(SIZES), head, freeze_imputer=False, input=reads)
    before = state(classifier)
    buffers = {name for name, _ in classifier.named_buffers()}
    train(classifier, make_record(4), weight_decay=0.0)
    for name, after in classifier.state_dict().items():
        assert torch.equal(after, before[name]) == (name in buffers), name
