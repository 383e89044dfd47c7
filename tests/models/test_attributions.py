import pytest
import torch

from imputune.data.directions import Directions
from imputune.models.attributions import RecordPath, attribute_risk
from imputune.models.classifier import Classifier
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.heads import HEAD_BUILDERS, HeadSizes, build_head

pytestmark = pytest.mark.slow

SIZES = CsaiSizes(variables=5, hours=12, hidden_size=16, channels=8, attention_heads=2, feedforward=8)
READERS = [("mlp2", "hidden"), ("mlp5", "hidden"), ("lstm", "raw"), ("gru", "imputed")]


def classifier_of(head: str, reads: str) -> Classifier:
    """Build a classifier with random weights, large enough that stays have different risks."""
    torch.manual_seed(0)
    csai = Csai(SIZES)
    sizes = HeadSizes(input_size=16, variables=5, mlp_width=128)
    built = Classifier(csai, HEAD_BUILDERS[head](sizes), freeze_imputer=True, input=reads).eval()
    with torch.no_grad():
        for weight in built.head.parameters():
            weight *= 3
    return built


@pytest.mark.parametrize(("head", "reads"), READERS)
def test_attributions_are_complete(make_record, head, reads):
    """They add up to the risk minus the baseline's, for every stay; missing cells have attribution 0."""
    values, observed = make_record(4)
    attribution, _, risk, baseline = attribute_risk(classifier_of(head, reads), values, observed, 512)
    torch.testing.assert_close(attribution.sum(dim=(1, 2)), risk - baseline, atol=3e-4, rtol=0)
    assert (risk - baseline).abs().max() > 1e-3
    assert (attribution[observed == 0] == 0).all()
    assert (attribution[observed == 1] != 0).float().mean() > 0.9


def test_a_record_at_its_means_has_nothing_to_explain(make_record):
    """Values at the training means are the baseline: every attribution is 0."""
    values, observed = make_record(2)
    attribution, _, risk, baseline = attribute_risk(classifier_of("mlp2", "hidden"), values * 0, observed, 8)
    assert (attribution == 0).all()
    assert torch.equal(risk, baseline)


def test_a_stay_alone_is_explained_as_in_a_batch(make_record):
    """A stay's attributions do not depend on the other stays of the batch."""
    values, observed = make_record(3)
    built = classifier_of("mlp2", "hidden")
    together, *_ = attribute_risk(built, values, observed, 16)
    alone, *_ = attribute_risk(built, values[1:2], observed[1:2], 16)
    torch.testing.assert_close(together[1:2], alone, atol=1e-6, rtol=1e-4)


def test_numbers_in_missing_cells_change_nothing(make_record):
    """A number in a missing cell is not read."""
    values, observed = make_record(2)
    built = classifier_of("mlp2", "hidden")
    attribution, *_ = attribute_risk(built, values, observed, 8)
    spoilt, *_ = attribute_risk(built, values + 9 * (1 - observed), observed, 8)
    torch.testing.assert_close(attribution, spoilt)


def test_record_features_are_attributed_beside_the_cells(make_record):
    """Cells and features add up to the risk minus the baseline's; what stays as it is has attribution 0."""
    torch.manual_seed(0)
    sizes = HeadSizes(input_size=16, variables=5, mlp_width=32, record=6)
    built = Classifier(Csai(SIZES), build_head("mlp2", sizes), freeze_imputer=True).eval()
    with torch.no_grad():
        for weight in built.head.parameters():
            weight *= 3
    values, observed = make_record(3)
    record_BR = torch.randn(3, 6)
    baseline_BR = torch.cat([torch.zeros(3, 4), record_BR[:, 4:]], dim=1)
    found = attribute_risk(built, values, observed, 512, RecordPath(record_BR, baseline_BR))
    assert found.record_BR is not None
    added = found.cells_BTD.sum(dim=(1, 2)) + found.record_BR.sum(dim=1)
    torch.testing.assert_close(added, found.risk_B - found.baseline_B, atol=1e-3, rtol=0)
    assert (found.record_BR[:, 4:] == 0).all()
    assert (found.record_BR[:, :4] != 0).all()
    assert (found.cells_BTD[observed == 1] != 0).float().mean() > 0.9
    with torch.no_grad():
        start = Directions.of(torch.zeros_like(values), observed)
        torch.testing.assert_close(found.baseline_B, torch.sigmoid(built(start, baseline_BR)))
