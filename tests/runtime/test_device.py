import copy

import pytest
import torch
from torch import nn

from imputune.data.batches import batches_in_order
from imputune.data.splits import fit_and_split
from imputune.errors import UserError
from imputune.imputers.build import csai_sizes
from imputune.models.csai import Csai
from imputune.models.missingness import Missingness
from imputune.protocol.variants import make_variant
from imputune.runtime.device import choose_device, graphed
from imputune.runtime.seeds import Purpose, generator_for
from imputune.training.finetune import FinetuneJob, finetune_fold
from imputune.training.pretrain import PretrainJob, pretrain_fold
from imputune.training.reconstruction import mask_batch, reconstruction_step

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA GPU on this machine")


@pytest.mark.parametrize(
    ("name", "gpu", "device"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cuda", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
    ],
)
def test_device_follows_the_name_and_the_machine(monkeypatch, name, gpu, device):
    """Auto takes the GPU where there is one; cpu and cuda mean what they say."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_device(name) == torch.device(device)


def test_cuda_without_a_gpu_is_a_user_error(monkeypatch):
    """Asking for a GPU that is not there is one line with what to do."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="finds no GPU here: set device to auto or cpu, or install") as caught:
        choose_device("cuda")
    assert "\n" not in str(caught.value)


def test_training_names_the_missing_gpu(cohort, folds, make_params, recorder, monkeypatch):
    """The key in params.yaml reaches pretraining: a GPU asked for is not replaced by the CPU in silence."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    params = make_params().model_copy(update={"device": "cuda"})
    with pytest.raises(UserError, match="finds no GPU"):
        pretrain_fold(PretrainJob(cohort=cohort, fold=folds[0], params=params), recorder)


def test_only_arguments_of_the_captured_shape_are_replayed(monkeypatch):
    """Batches of four go through the graph, the last one of two through the module as it was."""

    def capture(module, samples):
        plain = module.forward
        module.forward = lambda *tensors: plain(*tensors) + 100
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    run = graphed(torch.nn.Identity(), (torch.zeros(4),))
    assert run(torch.ones(4)).tolist() == [101.0] * 4
    assert run(torch.ones(2)).tolist() == [1.0] * 2


@needs_gpu
@pytest.mark.parametrize(("state", "weight"), [("hidden", 0.0), ("hidden_pooled", 0.5)])
def test_graphed_passes_equal_the_cpu(cohort, folds, make_params, state, weight):
    """Loss, hidden state and every gradient of each batch, the last smaller one included, are the CPU's to 1e-4."""
    params = make_params(pretrain={"missingness_weight": weight})
    train = fit_and_split(cohort, folds[0], 0.001).train
    on_cpu = nn.ModuleList([Csai(csai_sizes(params, 4, 6)), *([Missingness(8, 4)] if weight else [])])
    on_gpu = copy.deepcopy(on_cpu).cuda()
    found = {}
    for modules in (on_cpu, on_gpu):
        imputer, missingness = modules[0], modules[1] if weight else None
        device, masks = imputer.device, generator_for(1, 0, Purpose.TRAIN_MASKS)
        step = reconstruction_step(imputer, train, 20, params.pretrain, state=state, missingness=missingness)
        for number, stays in enumerate(batches_in_order(len(train), 20)):
            loss, last, _ = step(*mask_batch(train, stays, torch.tensor(0.2), masks, device))
            modules.zero_grad()
            (loss + last.sum()).backward()
            gradients = [weight.grad.cpu() for weight in modules.parameters()]
            found[device.type, number] = [loss.detach().cpu(), last.detach().cpu(), *gradients]
    assert len(found) == 2 * 3
    for number in range(3):
        for ours, theirs in zip(found["cuda", number], found["cpu", number], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@needs_gpu
@pytest.mark.parametrize(
    ("mode", "reads", "pretrain"),
    [
        ("frozen", "hidden", {}),
        ("unfrozen", "hidden", {}),
        ("unfrozen", "hidden_pooled", {"missingness_weight": 0.5, "variable_masking": 0.2}),
    ],
)
def test_gpu_learns_as_the_cpu_does(cohort, folds, make_params, recorder, mode, reads, pretrain):
    """Pretraining and fine-tuning on the GPU end near the CPU's scores: masks and orders are the same."""
    results = {}
    for device in ("cpu", "cuda"):
        params = make_params(finetune={"dropout": 0.0}, pretrain=pretrain).model_copy(update={"device": device})
        pretrained = pretrain_fold(PretrainJob(cohort=cohort, fold=folds[0], params=params), recorder)
        weights = {name: torch.from_numpy(array) for name, array in pretrained.weights.items()}
        job = FinetuneJob(
            cohort=cohort,
            fold=folds[0],
            params=params,
            variant=make_variant("mlp2", mode, reads),
            pretrained=weights,
        )
        finetuned = finetune_fold(job, recorder)
        curve = {name: value for name, value in pretrained.history[-1].items() if "loss" in name}
        results[device] = pretrained.scores | finetuned.scores | curve
    assert results["cuda"] == pytest.approx(results["cpu"], rel=1e-2)
