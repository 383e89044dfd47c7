from typing import Any

import pytest
from pydantic import ValidationError

from imputune.errors import UserError
from imputune.protocol.choice import in_order
from imputune.protocol.imputers import IMPUTERS, imputer_kind
from imputune.protocol.variants import BLEND, HEADS, PROTOCOL, WORDS, Variant, families_of, make_variant, state_of


def test_the_protocol_is_the_papers() -> None:
    """Two MLPs and two recurrent heads with two inputs, in two modes under three schedules; two non-neural ones."""
    assert len(PROTOCOL) == len(set(PROTOCOL)) == 2 * 2 * 3 + 2 * 2 * 2 * 3 + 2 * 3
    for mode in ("frozen", "unfrozen"):
        neural = [variant for variant in PROTOCOL if variant.is_neural and variant.mode == mode]
        inputs = {(variant.head, variant.input) for variant in neural}
        assert inputs == {
            ("mlp2", "hidden"),
            ("mlp5", "hidden"),
            *((head, input) for head in ("lstm", "gru") for input in ("imputed", "raw")),
        }
        assert {variant.schedule for variant in neural} == {"optuna", "cyclic", "plateau"}
    non_neural = [variant.name for variant in PROTOCOL if not variant.is_neural]
    assert non_neural == [f"{h}-frozen-{i}-none" for h in ("xgboost", "svm") for i in ("imputed", "hidden", "summary")]
    assert {variant.imputer for variant in PROTOCOL} == {"csai"}


def test_a_variant_has_a_name_a_label_and_tags() -> None:
    """The name is its folder's, the label names the imputer too, and tags have a word for every field."""
    variant = make_variant("gru", "frozen", "imputed", "cyclic", "locf")
    assert (variant.name, variant.label) == ("gru-frozen-imputed-cyclic", "locf/gru-frozen-imputed-cyclic")
    words = {"head": "gru", "mode": "frozen", "input": "imputed", "schedule": "cyclic"}
    assert variant.tags() == words | {"imputer": "locf"}
    assert Variant.of(("gru", "frozen", "imputed", "cyclic"), "locf") == variant
    assert make_variant("mlp2").label == "csai/mlp2-frozen-hidden-plateau"


def test_the_frozen_variant_of_an_unfrozen_one() -> None:
    """It differs in the mode alone, and is its own frozen variant."""
    unfrozen = make_variant("lstm", "unfrozen", "raw", "optuna")
    assert unfrozen.frozen == make_variant("lstm", "frozen", "raw", "optuna")
    assert unfrozen.frozen.frozen == unfrozen.frozen
    assert (unfrozen.is_neural, make_variant("svm").is_neural) == (True, False)


def test_a_variant_is_frozen_and_knows_its_words() -> None:
    """No field can be changed, and a word that does not exist makes none."""
    variant = make_variant("mlp2")
    with pytest.raises(ValidationError, match="frozen"):
        variant.head = "mlp5"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="head"):
        Variant.of(("mlp3", "frozen", "hidden", "plateau"), "csai")
    assert WORDS["head"] == HEADS


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("mlp2",), "mlp2-frozen-hidden-plateau"),
        (("lstm", "", "", ""), "lstm-frozen-imputed-plateau"),
        (("gru", "unfrozen", "raw", "optuna"), "gru-unfrozen-raw-optuna"),
        (("xgboost",), "xgboost-frozen-imputed-none"),
        (("svm", None, "summary"), "svm-frozen-summary-none"),
    ],
)
def test_what_is_left_out_takes_the_heads_default(words: tuple[str, ...], name: str) -> None:
    """Frozen, its first input, and plateau, or none where there is no schedule."""
    assert make_variant(*words).name == name
    assert make_variant(*words) in PROTOCOL


@pytest.mark.parametrize(
    ("imputer", "mlp_inputs", "recurrent_inputs", "modes"),
    [
        ("csai_shuffled", {"hidden", "hidden_both", "hidden_pooled"}, {"imputed", "raw"}, {"frozen", "unfrozen"}),
        ("brits", {"hidden"}, {"imputed", "raw"}, {"frozen"}),
        ("mean", {"imputed"}, {"imputed"}, {"frozen"}),
    ],
)
def test_an_imputers_variants_follow_from_its_hidden_state(
    imputer: Any, mlp_inputs: set[str], recurrent_inputs: set[str], modes: set[str]
) -> None:
    """A control of CSAI has CSAI's, a network with a hidden state frozen ones, and without one MLPs read the series."""
    variants = [variant for family in families_of(imputer) for variant in family.variants(imputer)]
    assert {variant.imputer for variant in variants} == {imputer}
    assert {variant.base for variant in variants if variant.head == "mlp5"} == mlp_inputs
    assert {variant.base for variant in variants if variant.head == "lstm"} == recurrent_inputs
    for record in ({"static"}, {"static", "summary"}):
        assert {each.base for each in variants if {*each.record_parts} == record and each.is_neural} == {
            *mlp_inputs,
            *recurrent_inputs,
        }
    assert {variant.mode for variant in variants} == modes
    assert all(("hidden" in {each.input for each in variants}) == kind.has_hidden_state for kind in [IMPUTERS[imputer]])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("svm", "unfrozen"),
            "svm has no mode 'unfrozen': xgboost and svm exist with mode frozen, input imputed|hidden|summary|",
        ),
        (
            ("mlp2", "", "raw"),
            "mlp2 has no input 'raw': mlp2 and mlp5 exist with mode frozen|unfrozen, input hidden|",
        ),
        (("mlp2", "unfrozen", "", "", "mean"), "mlp2 on mean has no mode 'unfrozen': mlp2 and mlp5 exist with mode "),
        (("lstm", "", "hidden"), "lstm has no input 'hidden': lstm and gru exist with mode frozen|unfrozen"),
        (("gru", "", "summary"), "gru has no input 'summary': lstm and gru exist"),
        (("xgboost", "", "raw"), "xgboost has no input 'raw'"),
        (("xgboost", "", "", "plateau"), "xgboost has no schedule 'plateau'"),
        (("mlp5", "", "", "none"), "mlp5 has no schedule 'none'"),
        (("mlp3",), "unknown head 'mlp3' (did you mean 'mlp5'?): choose from mlp2, mlp5, lstm, gru, xgboost, svm"),
        (("mlp2", "melted"), "unknown mode 'melted': choose from frozen, unfrozen"),
        (("gru", "", "imputd"), "unknown input 'imputd' (did you mean 'imputed'?)"),
        (("gru", "", "", "platoe"), "unknown schedule 'platoe' (did you mean 'plateau'?)"),
        (("gru", "", "", "", "sait"), "unknown imputer 'sait' (did you mean 'saits'?): choose from csai, "),
    ],
)
def test_impossible_variants_are_refused_with_those_that_exist(words: tuple[str, ...], message: str) -> None:
    """An unknown word names the near miss; a combination that does not exist, the ones that do."""
    with pytest.raises(UserError) as caught:
        make_variant(*words)
    assert str(caught.value).startswith(message)


def test_further_states_are_variants_beside_the_papers() -> None:
    """MLPs and non-neural heads on CSAI and its controls read them where they are named; the protocol lacks them."""
    assert not {variant.base for variant in PROTOCOL} & {"hidden_both", "hidden_pooled"}
    for head, mode in (("mlp2", "frozen"), ("mlp5", "unfrozen"), ("xgboost", "frozen"), ("svm", "frozen")):
        for input in ("hidden_both", "hidden_pooled", "hidden_pooled+static", "hidden_both+static+summary"):
            variant = make_variant(head, mode, input, imputer="csai_untrained")
            assert (variant.input, state_of(variant.input)) == (input, variant.base)
            assert variant.name == f"{head}-{mode}-{input}-{'plateau' if variant.is_neural else 'none'}"
    for words in (("gru", "", "hidden_both"), ("mlp2", "", "hidden_pooled", "", "brits")):
        with pytest.raises(UserError, match="has no input 'hidden_"):
            make_variant(*words)


@pytest.mark.parametrize(
    ("input", "state"),
    [
        ("hidden", "hidden"),
        ("hidden_both", "hidden_both"),
        ("hidden_pooled+static", "hidden_pooled"),
        ("imputed", "hidden"),
        ("raw", "hidden"),
        ("summary+static", "hidden"),
    ],
)
def test_the_hidden_state_of_an_input(input: str, state: str) -> None:
    """The first word names it; beside a series, a recurrent head starts from `hidden`."""
    assert state_of(input) == state


def test_only_csai_is_registered() -> None:
    """Neither its controls nor other imputers become registered models."""
    assert [name for name, kind in IMPUTERS.items() if kind.is_registered] == ["csai"]


def test_an_own_name_has_what_csai_has() -> None:
    """Its label and model are its own; its variants are CSAI's, and stand behind the catalogue's in order."""
    kind = imputer_kind("csai_set_b")
    assert (kind.label, kind.family, kind.has_hidden_state, kind.is_registered) == ("CSAI (set b)", "csai", True, True)
    assert (*families_of("csai_set_b"), BLEND) == families_of("csai")
    own, csai, last = (make_variant("mlp2", imputer=name) for name in ("csai_set_b", "csai", "gpvae"))
    assert own.label == "csai_set_b/mlp2-frozen-hidden-plateau"
    assert in_order([own, last, csai]) == [csai, last, own]


@pytest.mark.parametrize("word", ["csai_", "csai__b", "csai_B", "csai_b/c", "csai_b_", "csai_untrained2", "other_b"])
def test_other_words_are_no_own_names(word: str) -> None:
    """A name that could be no folder, or that resembles a control, is refused."""
    with pytest.raises(UserError, match=r"own name|unknown imputer"):
        make_variant("mlp2", imputer=word)
