"""Choosing variants: by words, by the blocks of grid in params.yaml, in the protocol's order."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from imputune.errors import UserError
from imputune.protocol.imputers import DEFAULT_IMPUTER, IMPUTERS, known_imputer
from imputune.protocol.variants import (
    FIELDS,
    HEADS,
    PAPER_INPUTS,
    Family,
    Variant,
    existing,
    families_of,
    family_of,
    known_word,
    make_variant,
)
from imputune.settings.head_sections import Grid, NeuralBlock, NonNeuralBlock
from imputune.settings.names import ImputerName


def choose_variants(
    wanted: Mapping[str, Sequence[str]], imputers: Sequence[str] = (), heads: Sequence[str] = HEADS
) -> list[Variant]:
    """Return the protocol's variants whose fields are among the wanted words; a field without words takes any.

    Inputs with static facts or statistics are not the paper's: they must be asked for.

    With `imputers`, return the variants of these imputers instead. Then mode, input and schedule without words take
    each head's default, so that an imputer and a head have one variant; without a wanted head, `heads` are taken.

    Raises UserError for an unknown word, for words that no variant combines, and for an imputer without a variant.
    """
    for field, words in wanted.items():
        for word in words:
            known_word(field, word)
    names = list(dict.fromkeys(map(known_imputer, imputers or (DEFAULT_IMPUTER,))))
    families = [(name, family) for name in names for family in families_of(name)]
    asked = {field: tuple(wanted.get(field) or ()) for field in FIELDS}
    variants = [
        variant
        for name, family in families
        for variant in family.variants(name)
        if all(getattr(variant, field) in words for field, words in asked.items() if words)
        and (asked["input"] or variant.input in PAPER_INPUTS)
        and (not imputers or _is_default(variant, family, heads, asked))
    ]
    unmatched = [
        word
        for field, words in asked.items()
        for word in words
        if word not in {getattr(variant, field) for variant in variants}
    ]
    unmatched += [f"imputer {name}" for name in names if name not in {variant.imputer for variant in variants}]
    if unmatched:
        said = ", ".join(f"{field} {' or '.join(words)}" for field, words in asked.items() if words)
        chosen = {*(asked["head"] or heads)}
        found = dict.fromkeys(existing(family) for _, family in families if {*family.head} & chosen)
        what = f"no variant with {said} has {' or '.join(unmatched)}" if variants else f"no variant has {said}"
        raise UserError(f"{what}: {'; '.join(found)}")
    return variants


def grid_variants(grid: Grid, imputers: Sequence[ImputerName]) -> list[Variant]:
    """Return the variants of some imputers that params.yaml names under grid, in the protocol's order, each once.

    Raises UserError, naming the block, for a combination that does not exist.
    """
    variants = [variant for name, block in grid.blocks.items() for variant in _block_variants(name, block)]
    place = {name: number for number, name in enumerate(imputers)}
    ours = dict.fromkeys(variant for variant in variants if variant.imputer in place)
    return sorted(ours, key=lambda variant: (place[variant.imputer], *_order(variant)))


def in_order(variants: Iterable[Variant]) -> list[Variant]:
    """Return variants in the order of imputers, heads, modes, inputs and schedules, each once."""
    names = list(IMPUTERS)
    return sorted(set(variants), key=lambda variant: (names.index(variant.imputer), *_order(variant)))


def _block_variants(name: str, block: NeuralBlock | NonNeuralBlock) -> list[Variant]:
    modes: tuple[str, ...] = ("frozen",)
    schedules: tuple[str, ...] = ("none",)
    if isinstance(block, NeuralBlock):
        modes, schedules = block.mode, block.schedule
    combinations = product(block.imputer, block.head, modes, block.input, schedules)
    try:
        return [
            make_variant(head, mode=mode, input=input, schedule=schedule, imputer=imputer)
            for imputer, head, mode, input, schedule in combinations
        ]
    except UserError as error:
        raise UserError(f"params.yaml, grid.{name}: {error}") from None


def _order(variant: Variant) -> tuple[int, ...]:
    """Return a variant's place among those of its imputer: by head, mode, input and schedule."""
    family = family_of(variant.imputer, variant.head)
    places = (getattr(family, field).index(getattr(variant, field)) for field in FIELDS[1:])
    return HEADS.index(variant.head), *places


def _is_default(variant: Variant, family: Family, heads: Sequence[str], asked: Mapping[str, Sequence[str]]) -> bool:
    """Say whether a variant has the default in every field that nothing was asked of."""
    defaults = {field: (word,) for field, word in family.defaults.items()} | {"head": tuple(heads)}
    return all(getattr(variant, field) in defaults[field] for field in FIELDS if not asked[field])
