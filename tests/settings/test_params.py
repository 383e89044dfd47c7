import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from imputune.errors import UserError
from imputune.settings.file import find_root, read_params, use_dataset

PARAMS = Path(__file__).parents[2] / "params.yaml"
Edit = Callable[[dict[str, Any]], object]


def edited(folder: Path, edit: Edit) -> Path:
    """Write the project's params.yaml with a change made to it."""
    content = yaml.safe_load(PARAMS.read_text())
    edit(content)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def refusal(path: Path) -> str:
    """Return the one line with which a params.yaml is refused."""
    with pytest.raises(UserError) as caught:
        read_params(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rename(section: dict[str, Any], key: str, typo: str) -> None:
    """Misspell a key."""
    section[typo] = section.pop(key)


def test_the_projects_own_file_reads() -> None:
    """params.yaml holds what the paper and the house plan fix."""
    params = read_params(PARAMS)
    assert (params.folds.count, params.csai.hidden) == (5, 108)
    assert (params.masking.hiding, params.masking.share, params.masking.factor) == ("non_uniform", 0.1, 0.5)
    assert params.budget_of("physionet2012").frozen_epochs <= 200
    assert params.budget_of(params.dataset).pretrain_epochs > 0
    assert (params.grid.mlp.head, params.grid.mlp.mode) == (("mlp2",), ("frozen", "unfrozen"))
    plateau, cyclic, optuna = (getattr(params.schedules, name) for name in ("plateau", "cyclic", "optuna"))
    assert (plateau.learning_rate, plateau.factor, plateau.patience, plateau.min_learning_rate) == (1e-3, 0.2, 15, 1e-5)
    assert (cyclic.lowest_rate, cyclic.highest_rate) == (optuna.lowest_rate, optuna.highest_rate) == (1e-5, 1e-3)
    assert (optuna.trials, params.finetune.patience) == (20, 25)


def test_params_are_frozen() -> None:
    """No key can be set after reading."""
    params = read_params(PARAMS)
    with pytest.raises(ValidationError, match="frozen"):
        params.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        params.csai.hidden = 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda p: p.update(sed=1),
            "params.yaml: unknown key 'sed' (did you mean 'seed'?): known here are dataset,",
        ),
        (
            lambda p: p["finetune"].update(patiense=3),
            "params.yaml: unknown key 'finetune.patiense' (did you mean 'patience'?): known here are batch_size,",
        ),
        (
            lambda p: p["schedules"]["plateau"].update(min_learning_rates=3),
            "params.yaml: unknown key 'schedules.plateau.min_learning_rates' (did you mean 'min_learning_rate'?)",
        ),
        (
            lambda p: p["budget"]["synthetic"].update(pretrain_epoch=3),
            "params.yaml: unknown key 'budget.synthetic.pretrain_epoch' (did you mean 'pretrain_epochs'?): "
            "known here are pretrain_epochs, frozen_epochs, unfrozen_epochs",
        ),
        (lambda p: p["folds"].update(zzz=3), "params.yaml: unknown key 'folds.zzz': known here are count"),
    ],
)
def test_unknown_key_names_the_near_miss(tmp_path: Path, edit: Edit, message: str) -> None:
    """A key too many is refused with the nearest known key of its own section, and all known ones."""
    assert refusal(edited(tmp_path, edit)).startswith(message)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: rename(p, "seed", "sede"), "unknown key 'sede' (did you mean 'seed'?)"),
        (
            lambda p: rename(p["finetune"], "patience", "patiense"),
            "unknown key 'finetune.patiense' (did you mean 'patience'?)",
        ),
    ],
)
def test_misspelt_key_names_the_near_miss(tmp_path: Path, edit: Edit, message: str) -> None:
    """A key misspelt is one too many and one missing: the typo is what is reported."""
    assert message in refusal(edited(tmp_path, edit))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p.update(seed="2012"), "params.yaml: seed = '2012': input should be a valid integer"),
        (lambda p: p.update(seed=1.5), "params.yaml: seed = 1.5: input should be a valid integer"),
        (lambda p: p.update(seed=True), "params.yaml: seed = True: input should be a valid integer"),
        (
            lambda p: p["csai"].update(hidden="wide"),
            "params.yaml: csai.hidden = 'wide': input should be a valid integer",
        ),
        (
            lambda p: p["pretrain"].update(learning_rate="fast"),
            "params.yaml: pretrain.learning_rate = 'fast': input should",
        ),
        (lambda p: p.update(dataset=2012), "params.yaml: dataset = 2012: input should be a valid string"),
        (lambda p: p.update(folds=5), "params.yaml: folds = 5: input should be"),
        (lambda p: p["grid"]["mlp"].update(head="mlp2"), "params.yaml: grid.mlp.head = 'mlp2': input should be"),
        (lambda p: p["budget"].update(synthetic=3), "params.yaml: budget.synthetic = 3: input should be"),
    ],
)
def test_wrong_type_names_key_and_value(tmp_path: Path, edit: Edit, message: str) -> None:
    """A value of another type is refused, never converted, with its place and what was expected."""
    assert refusal(edited(tmp_path, edit)).startswith(message)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p["folds"].update(count=2), "folds.count = 2: input should be greater than or equal to 3"),
        (lambda p: p["masking"].update(share=1.0), "masking.share = 1.0: input should be less than 1"),
        (lambda p: p["masking"].update(share=0.0), "masking.share = 0.0: input should be greater than 0"),
        (lambda p: p["masking"].update(factor=0.0), "masking.factor = 0.0: input should be greater than 0"),
        (lambda p: p["finetune"].update(dropout=1.0), "finetune.dropout = 1.0: input should be less than 1"),
        (lambda p: p["finetune"].update(patience=0), "finetune.patience = 0: input should be greater than 0"),
        (lambda p: p["pretrain"].update(batch_size=-1), "pretrain.batch_size = -1: input should be greater than 0"),
        (lambda p: p.update(workers=0), "workers = 0: input should be greater than 0"),
        (lambda p: p.update(device="gpu"), "device = 'gpu': input should be 'auto', 'cpu' or 'cuda'"),
        (
            lambda p: p["masking"].update(hiding="uniformly"),
            "masking.hiding = 'uniformly': input should be 'non_uniform' or",
        ),
        (
            lambda p: p["grid"]["mlp"].update(head=["lstm"]),
            "grid.mlp.head.0 = 'lstm': input should be 'mlp2' or 'mlp5'",
        ),
        (lambda p: p["grid"]["mlp"].update(input=["raw"]), "grid.mlp.input.0 = 'raw': input should be 'hidden'"),
        (
            lambda p: p["grid"]["shallow"].update(input=["raw"]),
            "grid.shallow.input.0 = 'raw': input should be 'imputed', 'hidden' or 'summary'",
        ),
        (
            lambda p: p["schedules"]["cyclic"].update(lowest_rate=0.5),
            "schedules.cyclic = {'lowest_rate': 0.5, 'highest_rate': 0.001, 'half_cycle_epochs': 2, 'gamma': 0.9998}: "
            "value error, lowest_rate must be below highest_rate, 0.001",
        ),
        (
            lambda p: p["schedules"]["optuna"].update(frozen_scope="one_fold"),
            "schedules.optuna.frozen_scope = 'one_fold': input should be 'first_fold' or 'each_fold'",
        ),
        (lambda p: p["shallow"]["svm"].update(costs=[]), "shallow.svm.costs = []: tuple should have at least 1 item"),
    ],
)
def test_value_out_of_range_names_the_range(tmp_path: Path, edit: Edit, message: str) -> None:
    """A number out of its range, or a word that is not a choice, is refused with what is allowed."""
    assert refusal(edited(tmp_path, edit)).startswith(f"params.yaml: {message}")


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (lambda p: p.pop("seed"), "seed"),
        (lambda p: p["csai"].pop("hidden"), "csai.hidden"),
        (lambda p: p["budget"]["synthetic"].pop("pretrain_epochs"), "budget.synthetic.pretrain_epochs"),
    ],
)
def test_missing_key_is_named(tmp_path: Path, edit: Edit, place: str) -> None:
    """A key left out is named with its section; there are no hidden defaults."""
    assert refusal(edited(tmp_path, edit)).startswith(f"params.yaml: key '{place}' is missing: add it")


def test_missing_file_names_the_remedy(tmp_path: Path) -> None:
    """No params.yaml is one line."""
    assert refusal(tmp_path / "params.yaml").endswith("params.yaml is missing: run inside the project's folder")


@pytest.mark.parametrize("text", ["seed: [1, 2", "seed: 1\n\tworkers: 2", "a: b: c"])
def test_broken_yaml_is_one_line(tmp_path: Path, text: str) -> None:
    """A file that is no YAML is refused with the parser's reason on one line."""
    (tmp_path / "params.yaml").write_text(text)
    assert "params.yaml is not YAML: " in refusal(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["", "- 1\n", "seed\n"])
def test_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    """An empty file, a list and a word are refused in one line."""
    (tmp_path / "params.yaml").write_text(text)
    assert refusal(tmp_path / "params.yaml").startswith("params.yaml")


def test_dataset_without_budget_names_those_that_have_one() -> None:
    """A dataset that params.yaml has no epochs for is refused with the near miss and the known ones."""
    with pytest.raises(UserError) as caught:
        read_params(PARAMS).budget_of("physionet")
    assert str(caught.value) == (
        "params.yaml has no budget for dataset 'physionet' (did you mean 'physionet2012'?): "
        "add it under budget (there are: synthetic, physionet2012, mimic3)"
    )


def test_use_dataset_changes_one_line_and_keeps_comments(tmp_path: Path) -> None:
    """Only the dataset's name changes, its comment and every other line stay; a second time nothing does."""
    path = tmp_path / "params.yaml"
    path.write_text(
        "# dataset: old\nseed: 1\ndataset: synthetic # read from data/\nnested:\n  dataset: mine # not this\n"
    )
    assert use_dataset(path, "physionet2012") is True
    expected = (
        "# dataset: old\nseed: 1\ndataset: physionet2012 # read from data/\nnested:\n  dataset: mine # not this\n"
    )
    assert path.read_text() == expected
    assert use_dataset(path, "physionet2012") is False
    assert path.read_text() == expected


@pytest.mark.parametrize("text", ["seed: 1\n", "# dataset: old\nnested:\n  dataset: mine\n", "dataset:\nseed: 1\n"])
def test_use_dataset_without_a_line_to_change(tmp_path: Path, text: str) -> None:
    """Where no line names the dataset the file stays as it is, and the error says which line to add."""
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"has no line `dataset: <name>`: add `dataset: physionet2012`$"):
        use_dataset(path, "physionet2012")
    assert path.read_text() == text


def test_use_dataset_on_the_projects_own_file(tmp_path: Path) -> None:
    """The project's params.yaml reads with the new dataset, and differs in that one line."""
    path = Path(shutil.copy(PARAMS, tmp_path))
    other = "physionet2012" if read_params(PARAMS).dataset == "synthetic" else "synthetic"
    assert use_dataset(path, other)
    before, after = PARAMS.read_text().splitlines(), path.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1
    assert changed[0][0].partition("#")[2] == changed[0][1].partition("#")[2]
    assert read_params(path) == read_params(PARAMS).model_copy(update={"dataset": other})


def test_find_root_walks_up(tmp_path: Path) -> None:
    """The project is the nearest folder above with params.yaml and dvc.yaml, one of them alone is none."""
    deep = tmp_path / "clone" / "data" / "synthetic"
    deep.mkdir(parents=True)
    (deep / "params.yaml").touch()
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / "clone" / name).touch()
    assert find_root(deep) == tmp_path / "clone"
    assert find_root(tmp_path / "clone") == tmp_path / "clone"


def test_find_root_outside_a_project(tmp_path: Path) -> None:
    """Outside a project the error says to go into one."""
    with pytest.raises(UserError, match=r"is in no imputune project .*: cd into your clone"):
        find_root(tmp_path)
