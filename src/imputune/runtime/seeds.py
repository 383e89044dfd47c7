"""Seeds: each fold and purpose has its own generator, so more draws for one purpose change no other."""

from enum import IntEnum

import torch


class Purpose(IntEnum):
    """What is drawn. The numbers enter the seeds: another number gives other results."""

    IMPUTER_WEIGHTS = 0
    PRETRAIN_ORDER = 1
    TRAIN_MASKS = 2
    VALIDATION_MASKS = 3
    TEST_MASKS = 4
    SHUFFLING_ACROSS_STAYS = 5
    MISSINGNESS_WEIGHTS = 6
    TRAIN_VARIABLE_MASKS = 7
    HEAD_WEIGHTS = 10
    FINETUNE_ORDER = 11
    FINETUNE_MASKS = 12
    DROPOUT = 13
    SEARCH = 14
    NON_NEURAL = 15
    FINETUNE_VARIABLE_MASKS = 16
    BLEND_GROUPS = 20


def generator_for(seed: int, fold: int, purpose: Purpose, variety: int | None = None) -> torch.Generator:
    """Return a fold's generator for a purpose; `variety` separates draws of one purpose, such as masking patterns."""
    mixed = seed
    for number in (fold, purpose, *(() if variety is None else (variety,))):
        mixed = (mixed * 1_000_003 + int(number) + 1) % (2**63)
    return torch.Generator().manual_seed(mixed)
