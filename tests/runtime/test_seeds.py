import pytest
import torch

from imputune.runtime.seeds import Purpose, generator_for


@pytest.mark.parametrize(
    ("purpose", "number"),
    [
        ("IMPUTER_WEIGHTS", 0),
        ("PRETRAIN_ORDER", 1),
        ("TRAIN_MASKS", 2),
        ("VALIDATION_MASKS", 3),
        ("TEST_MASKS", 4),
        ("SHUFFLING_ACROSS_STAYS", 5),
        ("MISSINGNESS_WEIGHTS", 6),
        ("TRAIN_VARIABLE_MASKS", 7),
        ("HEAD_WEIGHTS", 10),
        ("FINETUNE_ORDER", 11),
        ("FINETUNE_MASKS", 12),
        ("DROPOUT", 13),
        ("SEARCH", 14),
        ("NON_NEURAL", 15),
        ("FINETUNE_VARIABLE_MASKS", 16),
    ],
)
def test_purposes_keep_their_numbers(purpose, number):
    """The numbers enter the seeds: another number would change every result."""
    assert Purpose[purpose] == number


@pytest.mark.parametrize(
    ("arguments", "seed", "first"),
    [
        ((2012, 0, Purpose.IMPUTER_WEIGHTS), 2012012073018112, 0.869648814201355),
        ((2012, 4, Purpose.SEARCH), 2012012077018138, 0.08527886867523193),
        ((7, 2, Purpose.TEST_MASKS), 7000045000077, 0.7850432991981506),
        ((7, 2, Purpose.TEST_MASKS, 1), 7000066000212000233, 0.7004868388175964),
        ((2**32 - 1, 4, Purpose.TEST_MASKS, 3), 1507811439748960805, 0.14726370573043823),
    ],
)
def test_generators_draw_the_same_as_ever(arguments, seed, first):
    """Seeds are seed * 1000003 + number + 1, repeated for fold, purpose and variety, modulo 2**63."""
    generator = generator_for(*arguments)
    assert generator.initial_seed() == seed
    assert torch.rand(1, generator=generator).item() == first


def test_generators_of_seeds_folds_purposes_and_varieties_differ_and_repeat():
    """Each combination has its own draws, the same every time."""
    draws = {
        key: torch.rand(1, generator=generator_for(*key)).item()
        for seed in (1, 2)
        for fold in range(5)
        for purpose in Purpose
        for key in ((seed, fold, purpose), (seed, fold, purpose, 1), (seed, fold, purpose, 2))
    }
    assert len(set(draws.values())) == len(draws)
    key = (1, 3, Purpose.TRAIN_MASKS)
    assert draws[key] == torch.rand(1, generator=generator_for(*key)).item()
