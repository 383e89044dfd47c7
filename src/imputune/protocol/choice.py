"""Choosing variants: by words, by the blocks of grid in params.yaml, in the protocol's order."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from imputune.errors import UserError
from imputune.protocol.imputers import DEFAULT_IMPUTER, known_imputer, order_of
from imputune.protocol.variants import (
    BLEND,
    FIELDS,
    HEADS,
    PAPER_INPUTS,
    SINGLE_HEADS,
    Family,
    Variant,
    existing,
    families_of,
    family_of,
    known_word,
    make_variant,
    variant_of_label,
)
from imputune.settings.head_sections import Blend, BlendBlock, Grid, NeuralBlock, NonNeuralBlock
from imputune.settings.names import ImputerName


def choose_variants(
    wanted: Mapping[str, Sequence[str]], imputers: Sequence[str] = (), heads: Sequence[str] = SINGLE_HEADS
) -> list[Variant]:
    """Return the protocol's variants whose fields are among the wanted words; a field without words takes any.

    Inputs with static facts or statistics, and a blend, are not the paper's: they must be asked for.

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
    if set(asked["head"]) & set(BLEND.head):
        for name in names if DEFAULT_IMPUTER not in names else ():
            family_of(name, BLEND.head[0])
    variants = [
        variant
        for name, family in families
        for variant in family.variants(name)
        if all(getattr(variant, field) in words for field, words in asked.items() if words)
        and (asked["input"] or variant.input in PAPER_INPUTS or (variant.head in asked["head"] and variant.is_blend))
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

    Raises UserError, naming the block, for a combination that does not exist, and where no block has these imputers.
    """
    variants = [variant for name, block in grid.blocks.items() for variant in _block_variants(name, block)]
    place = {name: number for number, name in enumerate(imputers)}
    ours = dict.fromkeys(variant for variant in variants if variant.imputer in place)
    if not ours:
        named = " or ".join(imputers)
        raise UserError(
            f"params.yaml has no variant of {named} under grid: add {named} to a block's imputer, or choose variants "
            "with --imputer or --head"
        )
    return sorted(ours, key=lambda variant: (place[variant.imputer], *_order(variant)))


def in_order(variants: Iterable[Variant]) -> list[Variant]:
    """Return variants in the order of imputers, heads, modes, inputs and schedules, each once."""
    return sorted(set(variants), key=lambda variant: (order_of(variant.imputer), _order(variant)))


def blend_members(blend: Blend) -> list[Variant]:
    """Return the members of the blend in params.yaml.

    Raises UserError for a label that names no variant, and for a variant that cannot be a member: another blend; svm,
    and variants of imputers that are not registered, because a version of the blend holds its members.
    """
    members = []
    for label in blend.members:
        try:
            member = variant_of_label(label)
        except UserError as error:
            raise UserError(f"params.yaml, blend.members: {error}") from None
        if member.is_blend:
            raise UserError(f"params.yaml, blend.members: {label} is a blend itself: name its members instead")
        if not member.is_registered:
            raise UserError(
                f"params.yaml, blend.members: {label} is not registered as a model, so no version can hold it: choose "
                "another member"
            )
        members.append(member)
    return members


def _block_variants(name: str, block: NeuralBlock | NonNeuralBlock | BlendBlock) -> list[Variant]:
    modes: tuple[str, ...] = ("frozen",)
    schedules: tuple[str, ...] = ("none",)
    if isinstance(block, NeuralBlock):
        modes, schedules = block.mode, block.schedule
    inputs = BLEND.input if isinstance(block, BlendBlock) else block.input
    combinations = product(block.imputer, block.head, modes, inputs, schedules)
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
