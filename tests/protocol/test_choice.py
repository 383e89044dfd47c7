from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imputune.errors import UserError
from imputune.protocol.choice import choose_variants, grid_variants, in_order
from imputune.protocol.variants import PROTOCOL, make_variant
from imputune.settings.file import read_params
from imputune.settings.schema import Grid

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_choosing_by_fields() -> None:
    """Words of one field are alternatives, fields must hold together, a field without words takes any."""
    wanted = {"head": ["lstm", "mlp2"], "mode": ["frozen"], "schedule": ["cyclic"]}
    names = [variant.name for variant in choose_variants(wanted)]
    assert names == ["mlp2-frozen-hidden-cyclic", "lstm-frozen-imputed-cyclic", "lstm-frozen-raw-cyclic"]
    assert choose_variants({}) == list(PROTOCOL)


def test_further_states_are_chosen_by_name_alone() -> None:
    """An input beyond the paper's comes where it is named, after the paper's."""
    wanted = {"head": ["mlp2"], "mode": ["frozen"], "schedule": ["plateau"], "input": ["hidden_pooled", "hidden"]}
    names = [variant.name for variant in in_order(choose_variants(wanted))]
    assert names == ["mlp2-frozen-hidden-plateau", "mlp2-frozen-hidden_pooled-plateau"]
    del wanted["input"]
    assert [variant.name for variant in choose_variants(wanted)] == ["mlp2-frozen-hidden-plateau"]


def test_choosing_imputers_takes_each_heads_default() -> None:
    """With imputers named, a head has one variant on each, unless words say otherwise; heads may be limited."""
    labels = [variant.label for variant in choose_variants({}, ["mean", "csai", "mean"], ["mlp2", "xgboost"])]
    assert labels == [
        "mean/mlp2-frozen-imputed-plateau",
        "mean/xgboost-frozen-imputed-none",
        "csai/mlp2-frozen-hidden-plateau",
        "csai/xgboost-frozen-imputed-none",
    ]
    cyclic = choose_variants({"schedule": ["cyclic"], "head": ["gru"]}, ["mean"])
    assert [variant.label for variant in cyclic] == ["mean/gru-frozen-imputed-cyclic"]


@pytest.mark.parametrize(
    ("wanted", "imputers", "message"),
    [
        ({"head": ["svm"], "mode": ["unfrozen"]}, [], "no variant has head svm, mode unfrozen: xgboost and svm exist"),
        ({"head": ["mlp2"], "input": ["raw"]}, [], "no variant has head mlp2, input raw: mlp2 and mlp5 exist with"),
        ({"head": ["gru", "mlp2"], "input": ["raw"]}, [], "no variant with head gru or mlp2, input raw has mlp2:"),
        ({"head": ["grue"]}, [], "unknown head 'grue' (did you mean 'gru'?)"),
        ({"input": ["hidden"]}, ["mean"], "no variant has input hidden: mlp2 and mlp5 exist with mode frozen, input "),
        (
            {"head": ["mlp2"], "input": ["hidden"]},
            ["csai", "mean"],
            "no variant with head mlp2, input hidden has imputer mean: mlp2 and mlp5 exist with mode ",
        ),
        ({}, ["maen"], "unknown imputer 'maen' (did you mean 'mean'?)"),
    ],
)
def test_choosing_nothing_is_refused(wanted: dict[str, list[str]], imputers: list[str], message: str) -> None:
    """Fields that no variant has together, and an imputer without a variant, are named with those that exist."""
    with pytest.raises(UserError) as caught:
        choose_variants(wanted, imputers)
    assert str(caught.value).startswith(message)


def grid(change: Callable[[dict[str, Any]], object]) -> Grid:
    """Return params.yaml's grid with a change made to it."""
    content = read_params(PARAMS).grid.model_dump()
    change(content)
    return Grid.model_validate(content)


def test_the_grid_of_params_has_the_papers_protocol_in_its_order() -> None:
    """CSAI's variants are some of the protocol's, in its order; the frozen variant of each is there too."""
    params = read_params(PARAMS)
    variants = grid_variants(params.grid, ["csai"])
    of_paper = [variant for variant in variants if variant in PROTOCOL]
    assert of_paper == sorted(of_paper, key=PROTOCOL.index)
    assert {*params.blend.members} <= {variant.label for variant in variants}
    assert make_variant("mlp2", "unfrozen") in variants
    assert all(variant.frozen in variants for variant in variants)
    assert {variant.imputer for variant in grid_variants(params.grid, params.imputers)} == {*params.imputers}


def test_the_grid_follows_the_order_of_imputers_and_of_the_protocol() -> None:
    """By hand: the imputers asked for, in their order; then heads, modes, inputs, schedules; each variant once."""
    lists = {"head": ["gru", "mlp2"], "mode": ["unfrozen", "frozen"], "schedule": ["plateau", "cyclic"]}

    def change(content: dict[str, Any]) -> None:
        for name in content:
            content[name]["imputer"] = []
        content["mlp"] = {"imputer": ["csai"], "input": ["hidden"], **lists, "head": ["mlp2"]}
        content["recurrent"] = {"imputer": ["csai", "mean"], "input": ["imputed"], **lists, "head": ["gru"]}
        content["recurrent"]["mode"] = ["frozen"]
        content["non_neural"] = {"imputer": ["mean"], "head": ["svm", "xgboost"], "input": ["imputed"]}
        content["non_neural_more"] = {"imputer": ["mean"], "head": ["xgboost"], "input": ["imputed"]}

    found = grid(change)
    assert [variant.label for variant in grid_variants(found, ["mean", "csai"])] == [
        "mean/gru-frozen-imputed-cyclic",
        "mean/gru-frozen-imputed-plateau",
        "mean/xgboost-frozen-imputed-none",
        "mean/svm-frozen-imputed-none",
        "csai/mlp2-frozen-hidden-cyclic",
        "csai/mlp2-frozen-hidden-plateau",
        "csai/mlp2-unfrozen-hidden-cyclic",
        "csai/mlp2-unfrozen-hidden-plateau",
        "csai/gru-frozen-imputed-cyclic",
        "csai/gru-frozen-imputed-plateau",
    ]
    assert [variant.imputer for variant in grid_variants(found, ["csai"])] == ["csai"] * 6
    with pytest.raises(UserError, match=r"^params\.yaml has no variant of locf under grid: add locf to "):
        grid_variants(found, ["locf"])


@pytest.mark.parametrize(
    ("block", "field", "words", "message"),
    [
        ("mlp", "input", ["raw"], "params.yaml, grid.mlp: mlp2 has no input 'raw': mlp2 and mlp5 exist with mode "),
        ("mlp_imputed", "mode", ["unfrozen"], "params.yaml, grid.mlp_imputed: mlp2 on mean has no mode 'unfrozen': "),
        ("recurrent", "input", ["hidden"], "params.yaml, grid.recurrent: gru has no input 'hidden': lstm and gru "),
        (
            "non_neural_more",
            "imputer",
            ["mean"],
            "params.yaml, grid.non_neural_more: xgboost on mean has no input 'hidden': xgboost and svm exist with ",
        ),
    ],
)
def test_a_combination_that_does_not_exist_names_its_block(
    block: str, field: str, words: list[str], message: str
) -> None:
    """The line says in which block of params.yaml the combination stands, and which exist."""
    with pytest.raises(UserError) as caught:
        grid_variants(grid(lambda content: content[block].update({field: words})), ["csai"])
    assert str(caught.value).startswith(message)


def test_variants_come_in_the_order_of_the_catalogue() -> None:
    """Imputers as the catalogue has them, then the protocol's order; each once."""
    mean, csai, unfrozen = (
        make_variant("xgboost", imputer="mean"),
        make_variant("xgboost"),
        make_variant("mlp5", "unfrozen"),
    )
    assert in_order([mean, csai, unfrozen, mean]) == [unfrozen, csai, mean]
