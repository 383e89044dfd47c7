import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from imputune.errors import UserError
from imputune.protocol.variants import base_of, record_parts
from imputune.settings.file import read_params
from imputune.settings.schema import Params

PARAMS = Path(__file__).parents[2] / "params.yaml"
Change = Callable[[dict[str, Any]], object]
Edited = Callable[[Change], Path]
# Fields whose range depends on another field: what their description says instead of the numbers.
RELATIVE_RANGES = {
    "csai.channels": "a multiple of attention_heads",
    "schedules.cyclic.highest_rate": "above lowest_rate",
    "schedules.optuna.highest_rate": "above lowest_rate",
    "scaling.clip_quantile": "0 (no clipping) to below 0.5",
    "assess.ranking.rate": "one of assess.rates",
    "assess.ranking.pattern": "one of assess.patterns",
}
# Fields that take imputers: the list of them stands in docs/, too long to repeat.
IMPUTERS = re.compile(r"^imputers$|\.imputer$")


def refusal(path: Path) -> str:
    """Return the one line with which a params.yaml is refused, without the file's name."""
    with pytest.raises(UserError) as caught:
        read_params(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("params.yaml: ")
    return str(caught.value).removeprefix("params.yaml: ")


def fields(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every field of the schema by its dotted name; a dataset's budget once."""
    for name, field in model.model_fields.items():
        annotation: Any = field.annotation
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[-1]
        yield above + name, field
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from fields(annotation, f"{above}{name}.")


def limits(field: FieldInfo) -> dict[str, float]:
    """Return the limits of a number, or of every number in a list, by gt, ge, lt, le."""
    metadata = list(field.metadata)
    for part in get_args(field.annotation):
        metadata += [each for info in getattr(part, "__metadata__", ()) for each in getattr(info, "metadata", ())]
    return {name: getattr(each, name) for each in metadata for name in ("gt", "ge", "lt", "le") if hasattr(each, name)}


def described_range(field: FieldInfo) -> str:
    """Return the words for a field's limits, "" for none."""
    found = limits(field)
    whole = "int" in str(field.annotation)
    low = f"{found.get('ge', found.get('gt', 0) + 1 if whole else 0):g}"
    match sorted(found):
        case []:
            return ""
        case ["gt"] if not whole:
            return f"above {found['gt']:g}"
        case ["ge"] | ["gt"]:
            return f"{low} or more"
        case ["gt", "lt"]:
            return f"between {found['gt']:g} and {found['lt']:g}"
        case ["gt", "le"]:
            return f"above {found['gt']:g} to {found['le']:g}"
        case ["ge", "le"]:
            return f"{low} to {found['le']:g}"
        case ["ge", "lt"] if whole:
            return f"{low} to 2**{found['lt'].bit_length() - 1} - 1"
        case _:
            return f"{low} to below {found['lt']:g}"


def test_the_projects_own_file_reads() -> None:
    """params.yaml holds what the paper and the house plan fix."""
    params = read_params(PARAMS)
    assert (params.folds.count, params.csai.hidden_size, params.heads.mlp_width) == (5, 108, 128)
    assert (params.masking.pattern, params.masking.rate, params.masking.factor) == ("non_uniform", 0.1, 0.5)
    assert params.budget_of("physionet2012").frozen_epochs <= 200
    assert params.budget_of(params.dataset).pretrain_epochs > 0
    plateau, cyclic, optuna = (getattr(params.schedules, name) for name in ("plateau", "cyclic", "optuna"))
    assert (plateau.learning_rate, plateau.factor, plateau.patience, plateau.min_learning_rate) == (1e-3, 0.2, 15, 1e-5)
    assert (cyclic.lowest_rate, cyclic.highest_rate) == (optuna.lowest_rate, optuna.highest_rate) == (1e-5, 1e-3)
    assert (optuna.trials, params.finetune.patience) == (20, 25)
    assert (params.assess.ranking.pattern, params.assess.ranking.rate) == ("non_uniform", 0.1)


def test_params_are_frozen() -> None:
    """No key can be set after reading."""
    params = read_params(PARAMS)
    with pytest.raises(ValidationError, match="frozen"):
        params.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        params.csai.hidden_size = 1


@pytest.mark.parametrize(
    ("name", "field"), list(fields(Params)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_field_says_what_it_means_and_its_range(name: str, field: FieldInfo) -> None:
    """A description is a sentence; it has the limits of a number, or every word that the field takes."""
    text = field.description or ""
    assert text.endswith(".")
    assert "  " not in text
    if name in RELATIVE_RANGES:
        assert RELATIVE_RANGES[name] in text
        return
    assert described_range(field) in text
    words = [word for part in (field.annotation, *get_args(field.annotation)) for word in literals(part)]
    if not IMPUTERS.search(name):
        assert all(re.search(rf"\b{base_of(word)}\b", text) for word in words)
        assert all(f"+{part}" in text for word in words for part in record_parts(word))


def literals(annotation: Any) -> tuple[str, ...]:
    """Return the words of a Literal, none for any other type."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def test_the_ranges_of_the_check_above_are_read_from_the_schema() -> None:
    """By hand, one field of every kind, so that the check does not pass because it compares with nothing."""
    ranges = {name: described_range(field) for name, field in fields(Params)}
    assert ranges["seed"] == "0 to 2**32 - 1"
    assert ranges["mimic3.minimum_age"] == "0 to 89"
    assert ranges["mimic3.memory_gib"] == "0.25 or more"
    assert ranges["budget.pretrain_epochs"] == "1 or more"
    assert ranges["masking.factor"] == "above 0"
    assert ranges["masking.rate"] == ranges["assess.rates"] == "between 0 and 1"
    assert ranges["finetune.dropout"] == "0 to below 1"
    assert ranges["schedules.cyclic.gamma"] == "above 0 to 1"
    assert ranges["non_neural.svm.costs"] == "above 0"
    assert ranges["pypots.gpvae.encoder_sizes"] == "1 or more"
    assert ranges["dataset"] == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(seed="2012"), "seed = '2012': input should be a valid integer"),
        (lambda p: p.update(seed=1.5), "seed = 1.5: input should be a valid integer"),
        (lambda p: p.update(seed=True), "seed = True: input should be a valid integer"),
        (lambda p: p["csai"].update(hidden_size="wide"), "csai.hidden_size = 'wide': input should be a valid integer"),
        (lambda p: p["pretrain"].update(learning_rate="fast"), "pretrain.learning_rate = 'fast': input should"),
        (lambda p: p.update(dataset=2012), "dataset = 2012: input should be a valid string"),
        (lambda p: p.update(folds=5), "folds = 5: input should be"),
        (lambda p: p["grid"]["mlp"].update(head="mlp2"), "grid.mlp.head = 'mlp2': input should be"),
        (lambda p: p["budget"].update(synthetic=3), "budget.synthetic = 3: input should be"),
    ],
)
def test_wrong_type_names_key_and_value(edited: Edited, change: Change, message: str) -> None:
    """A value of another type is refused, never converted, with its place and what was expected."""
    assert refusal(edited(change)).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["folds"].update(count=2), "folds.count = 2: input should be greater than or equal to 3"),
        (
            lambda p: p["folds"].update(protocol="five_fold"),
            "folds.protocol = 'five_fold': input should be 'cross_validation', 'single_split' or 'external'",
        ),
        (lambda p: p["folds"]["single_split"].update(seeds=[]), "folds.single_split.seeds = []: there must be one"),
        (
            lambda p: p["folds"]["single_split"].update(seeds=[1, 2, 1]),
            "folds.single_split.seeds = [1, 2, 1]: an entry is listed twice",
        ),
        (
            lambda p: p["folds"]["single_split"].update(fractions={"train": 0.8, "validation": 0.1, "test": 0.2}),
            "folds.single_split.fractions = {'train': 0.8, 'validation': 0.1, 'test': 0.2}: train, validation and test "
            "must add up to 1, they add up to 1.1",
        ),
        (lambda p: p["masking"].update(rate=1.0), "masking.rate = 1.0: input should be less than 1"),
        (lambda p: p["masking"].update(rate=0.0), "masking.rate = 0.0: input should be greater than 0"),
        (lambda p: p["masking"].update(factor=0.0), "masking.factor = 0.0: input should be greater than 0"),
        (lambda p: p["finetune"].update(dropout=1.0), "finetune.dropout = 1.0: input should be less than 1"),
        (lambda p: p["finetune"].update(patience=0), "finetune.patience = 0: input should be greater than 0"),
        (lambda p: p["pretrain"].update(batch_size=-1), "pretrain.batch_size = -1: input should be greater than 0"),
        (lambda p: p["heads"].update(mlp_width=0), "heads.mlp_width = 0: input should be greater than 0"),
        (lambda p: p.update(workers=0), "workers = 0: input should be greater than 0"),
        (lambda p: p.update(device="gpu"), "device = 'gpu': input should be 'auto', 'cpu' or 'cuda'"),
        (
            lambda p: p["masking"].update(pattern="uniformly"),
            "masking.pattern = 'uniformly': input should be 'uniform' or 'non_uniform'",
        ),
        (
            lambda p: p["grid"]["mlp"].update(head=["xgboost"]),
            "grid.mlp.head.0 = 'xgboost': input should be 'mlp2', 'mlp5', 'lstm' or 'gru'",
        ),
        (
            lambda p: p["grid"]["mlp"].update(input=["summary"]),
            "grid.mlp.input.0 = 'summary': input should be 'hidden', 'hidden+static', 'hidden+summary'",
        ),
        (
            lambda p: p["grid"]["non_neural"].update(input=["raw"]),
            "grid.non_neural.input.0 = 'raw': input should be 'imputed', 'hidden', 'summary', 'imputed+static'",
        ),
        (
            lambda p: p["schedules"]["cyclic"].update(lowest_rate=0.5),
            "schedules.cyclic = {'lowest_rate': 0.5, 'highest_rate': 0.001, 'half_cycle_epochs': 2, 'gamma': 0.9998}: "
            "lowest_rate must be below highest_rate, 0.001",
        ),
        (lambda p: p["csai"].update(channels=10), "csai = {"),
        (
            lambda p: p["schedules"]["optuna"].update(frozen_scope="one_fold"),
            "schedules.optuna.frozen_scope = 'one_fold': input should be 'first_fold' or 'each_fold'",
        ),
        (
            lambda p: p["non_neural"]["svm"].update(costs=[]),
            "non_neural.svm.costs = []: tuple should have at least 1 item",
        ),
    ],
)
def test_value_out_of_range_names_the_range(edited: Edited, change: Change, message: str) -> None:
    """A number out of its range, or a word that is not a choice, is refused with what is allowed."""
    assert refusal(edited(change)).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["csai"].update(channels=10), "channels must be a multiple of attention_heads, 8"),
        (lambda p: p.update(imputers=["csai", "mean", "csai"]), "an entry is listed twice"),
        (lambda p: p["assess"].update(patterns=["hours", "hours"]), "an entry is listed twice"),
        (lambda p: p["assess"].update(rates=[0.1, 0.1]), "an entry is listed twice"),
        (
            lambda p: p["grid"]["recurrent"].update(imputer=["csai", "linear"]),
            "grid.recurrent has imputer linear, which is not under imputers: add it there",
        ),
        (
            lambda p: p.update(imputers=["csai"]),
            "grid.mlp has imputer csai_untrained, which is not under imputers: add it there",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(edited: Edited, change: Change, message: str) -> None:
    """The line ends with the rule that is broken."""
    assert refusal(edited(change)).endswith(f"{message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p.update(also={"more": ["set-b"]}),
            "an imputer's own name is csai_ with lower-case letters and digits",
        ),
        (
            lambda p: p.update(also={"csai_shufled": ["b"]}),
            "resemble another imputer's (did you mean 'csai_shuffled'?)",
        ),
        (lambda p: p.update(also={"csai_more": []}), "csai_more has no cohort: name folders in data/, or remove it"),
        (lambda p: p.update(also={"csai_more": ["b", "b"]}), "an entry is listed twice"),
        (lambda p: p.update(also={"csai_more": ["../b"]}), "csai_more must name folders in data/, such as set-b"),
        (lambda p: p.update(also={"csai_more": "b"}), "input should be a valid tuple"),
        (lambda p: p.update(imputers=["csai_more"]), "input should be 'csai', 'csai_untrained'"),
        (
            lambda p: p["grid"]["mlp"].update(imputer=["csai_more"]),
            "grid.mlp has imputer csai_more, which is not under also: add it there",
        ),
        (
            lambda p: p["grid"]["mlp"].update(imputer=["csay"]),
            "unknown imputer 'csay' (did you mean 'csai'?): choose from csai, ",
        ),
    ],
)
def test_imputers_of_own_names_are_checked(edited: Edited, change: Change, message: str) -> None:
    """Names, folders and places that own names cannot have are refused with the rule."""
    assert message in refusal(edited(change))


def test_imputers_of_own_names_are_read(edited: Edited) -> None:
    """They follow those of the catalogue, and a block of the grid may name them."""

    def change(params: dict[str, Any]) -> None:
        params.update(also={"csai_more": ["set-b", "c.1"], "csai_2": ["set-c"]})
        params["grid"]["mlp"]["imputer"].append("csai_more")

    params = read_params(edited(change))
    assert params.all_imputers == (*params.imputers, "csai_more", "csai_2")
    assert params.also["csai_more"] == ("set-b", "c.1")


def test_dataset_without_budget_names_those_that_have_one() -> None:
    """A dataset that params.yaml has no epochs for is refused with the near miss and the known ones."""
    with pytest.raises(UserError) as caught:
        read_params(PARAMS).budget_of("physionet")
    assert str(caught.value) == (
        "params.yaml has no budget for dataset 'physionet' (did you mean 'physionet2012'?): "
        "add it under budget (there are: synthetic, physionet2012, mimic3)"
    )


def test_the_heads_of_the_grid_come_in_its_order() -> None:
    """Every head of a block once; a block with an empty list still names its heads."""
    grid = read_params(PARAMS).grid
    single = ["mlp", "mlp_record", "mlp_imputed", "mlp_unfrozen", "recurrent", "non_neural", "non_neural_more"]
    assert list(grid.blocks) == [*single, "blend"]
    assert grid.heads == ("mlp2", "gru", "xgboost")
