import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides

from imputune.errors import UserError
from imputune.settings import file
from imputune.settings.file import RENAMED, add_budget, find_root, read_params, use_dataset

PARAMS = Path(__file__).parents[2] / "params.yaml"
Change = Callable[[dict[str, Any]], object]
Edited = Callable[[Change], Path]


def refusal(path: Path) -> str:
    """Return the one line with which a params.yaml is refused."""
    with pytest.raises(UserError) as caught:
        read_params(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rename(section: dict[str, Any], key: str, other: str) -> None:
    """Give a key another name."""
    section[other] = section.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
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
        (lambda p: p["folds"].update(zzz=3), "params.yaml: unknown key 'folds.zzz': known here are protocol, count"),
    ],
)
def test_unknown_key_names_the_near_miss(edited: Edited, change: Change, message: str) -> None:
    """A key too many is refused with the nearest known key of its own section, and all known ones."""
    assert refusal(edited(change)).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: rename(p, "seed", "sede"), "unknown key 'sede' (did you mean 'seed'?)"),
        (
            lambda p: rename(p["finetune"], "patience", "patiense"),
            "unknown key 'finetune.patiense' (did you mean 'patience'?)",
        ),
    ],
)
def test_misspelt_key_names_the_near_miss(edited: Edited, change: Change, message: str) -> None:
    """A key misspelt is one too many and one missing: the typo is what is reported."""
    assert message in refusal(edited(change))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("masking.hiding", "masking.pattern"),
        ("masking.share", "masking.rate"),
        ("scaling.tail_share", "scaling.clip_quantile"),
        ("csai.hidden", "csai.hidden_size"),
        ("finetune.hidden_share", "finetune.masking_rate"),
        ("finetune.unfrozen_rate_share", "finetune.unfrozen_rate_factor"),
        ("shallow", "non_neural"),
        ("non_neural.xgboost.stay_share", "non_neural.xgboost.stay_fraction"),
        ("non_neural.xgboost.feature_share", "non_neural.xgboost.feature_fraction"),
        ("grid.shallow", "grid.non_neural"),
        ("matrix", "imputers, and the blocks of grid"),
        ("assess.hiding", "assess.patterns"),
        ("assess.shares", "assess.rates"),
    ],
)
def test_a_word_of_an_earlier_version_gets_the_new_one(edited: Edited, old: str, new: str) -> None:
    """A key that was renamed since is refused with its new name, whether the new key is there too or not."""

    def in_place_of(content: dict[str, Any], keep: bool) -> None:
        *above, key = old.split(".")
        for name in above:
            content = content[name]
        content[key] = content.get(new.split(".")[-1], 1)
        if not keep:
            content.pop(new.split(".")[-1], None)

    line = f"params.yaml: unknown key {old!r}: it is now {new}"
    assert refusal(edited(lambda content: in_place_of(content, keep=True))) == line
    assert refusal(edited(lambda content: in_place_of(content, keep=False))) == line


def test_every_renamed_key_is_tested_and_names_a_key_there_is() -> None:
    """The list above is whole, and no new name is out of date."""
    [marker] = test_a_word_of_an_earlier_version_gets_the_new_one.pytestmark
    assert dict(marker.args[1]) == RENAMED
    params = read_params(PARAMS).model_dump()
    for new in set(RENAMED.values()) - {RENAMED["matrix"]}:
        found: Any = params
        for name in new.split("."):
            found = found[name]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda p: p.pop("seed"), "seed"),
        (lambda p: p["csai"].pop("hidden_size"), "csai.hidden_size"),
        (lambda p: p["budget"]["synthetic"].pop("pretrain_epochs"), "budget.synthetic.pretrain_epochs"),
    ],
)
def test_missing_key_is_named(edited: Edited, change: Change, place: str) -> None:
    """A key left out is named with its section; there are no hidden defaults."""
    assert refusal(edited(change)).startswith(f"params.yaml: key '{place}' is missing: add it")


def test_missing_file_names_the_remedy(tmp_path: Path) -> None:
    """No params.yaml is one line."""
    assert refusal(tmp_path / "params.yaml").endswith("params.yaml is missing: run inside the project's folder")


def test_another_encoding_names_the_remedy(tmp_path: Path) -> None:
    """A file that is no UTF-8 is one line."""
    (tmp_path / "params.yaml").write_bytes("dataset: synthetic # für mich".encode("latin-1"))
    assert refusal(tmp_path / "params.yaml").endswith("params.yaml is not UTF-8 text: save it as UTF-8")


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


@pytest.mark.parametrize(
    ("after", "added", "key"),
    [("seed: 2012 #", "seed: 1", "seed"), ("  hidden_size: 108", "  hidden_size: 8", "hidden_size")],
)
def test_a_key_given_twice_is_refused_with_its_line(copied: Path, after: str, added: str, key: str) -> None:
    """YAML lets the second silently win; here the line of the second is named, in a section too."""
    lines = copied.read_text().splitlines()
    place = next(number for number, text in enumerate(lines) if text.startswith(after))
    lines.insert(place + 1, added)
    copied.write_text("\n".join(lines) + "\n")
    assert refusal(copied) == f"params.yaml, line {place + 2}: key {key!r} is there twice: remove one of the two"


def test_use_dataset_changes_one_line_and_keeps_the_rest(copied: Path) -> None:
    """Every other line stays byte for byte, with comments and order; a second time nothing changes."""
    before = copied.read_text().splitlines(keepends=True)
    assert use_dataset(copied, "physionet2012") is True
    changed = "dataset: physionet2012 # the cohort in data/<dataset> that commands read; `imputune extract` sets it\n"
    assert copied.read_text().splitlines(keepends=True) == [before[0], changed, *before[2:]]
    assert read_params(copied) == read_params(PARAMS).model_copy(update={"dataset": "physionet2012"})
    content = copied.read_bytes()
    assert use_dataset(copied, "physionet2012") is False
    assert copied.read_bytes() == content


def test_add_budget_adds_one_line_and_keeps_the_rest(copied: Path) -> None:
    """A dataset without a budget gets physionet2012's below the others; one that has a budget keeps it."""
    before = copied.read_text().splitlines(keepends=True)
    assert add_budget(copied, "toy") == "physionet2012"
    last = next(number for number, text in enumerate(before) if text.startswith("  mimic3: {pretrain_epochs"))
    added = "  toy: {pretrain_epochs: 40, frozen_epochs: 200, unfrozen_epochs: 6}\n"
    assert copied.read_text().splitlines(keepends=True) == [*before[: last + 1], added, *before[last + 1 :]]
    assert read_params(copied).budget_of("toy") == read_params(PARAMS).budget_of("physionet2012")
    content = copied.read_bytes()
    assert add_budget(copied, "toy") == add_budget(copied, "mimic3") == ""
    assert copied.read_bytes() == content


def test_the_editor_changes_no_byte_by_itself(copied: Path) -> None:
    """The project's params.yaml, read and written by the round-trip editor, is the same file."""
    before = copied.read_bytes()
    file._save(copied, *file._open(copied))
    assert copied.read_bytes() == before


def test_an_edited_file_keeps_a_users_style(tmp_path: Path) -> None:
    """Quotes, comments between lines, blank lines and a long line of the user stay as they are."""
    path = tmp_path / "params.yaml"
    text = PARAMS.read_text().replace("dataset: synthetic #", 'dataset: "synthetic" #', 1)
    long = f"# {'a long remark of mine ' * 20}\n\n\nseed: 7 # mine\n"
    text = text.replace(next(line for line in text.splitlines(keepends=True) if line.startswith("seed:")), long)
    path.write_text(text)
    assert use_dataset(path, "mimic3")
    assert path.read_text().splitlines()[2:] == text.splitlines()[2:]
    assert read_params(path).dataset == "mimic3"


@pytest.mark.parametrize("change", [use_dataset, add_budget])
def test_a_file_that_is_refused_is_not_edited(copied: Path, change: Callable[[Path, str], object]) -> None:
    """The error is the reader's, and no byte changes."""
    copied.write_text(copied.read_text().replace("seed: 2012", "sede: 2012", 1))
    before = copied.read_bytes()
    with pytest.raises(UserError, match=r"params\.yaml: unknown key 'sede' \(did you mean 'seed'\?\)"):
        change(copied, "toy")
    assert copied.read_bytes() == before


def test_a_budget_needs_one_to_copy(edited: Edited) -> None:
    """Where the dataset whose budget would be copied has none either, the line says so."""
    path = edited(lambda content: content["budget"].pop("physionet2012"))
    with pytest.raises(UserError, match="no budget for dataset 'physionet2012'"):
        add_budget(path, "toy")


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


def test_dvc_changes_only_the_lines_of_the_settings_it_sets(tmp_path: Path) -> None:
    """params.yaml is laid out as DVC writes it: `dvc exp run -S` keeps every other line, and every comment."""
    path = tmp_path / "params.yaml"
    shutil.copy(PARAMS, path)
    changes = ["seed=4", "finetune.dropout=0.25", "grid.mlp.head=[mlp2,gru]", "blend.weights=cross_fitted"]
    apply_overrides(path, [*changes, "budget.synthetic.pretrain_epochs=3", "non_neural.svm.costs=[1.0]"])
    before, after = PARAMS.read_text().splitlines(), path.read_text().splitlines()
    lost = [line for line in before if line not in after]
    assert [line.split()[0] for line in lost] == [
        *("seed:", "synthetic:", "dropout:"),
        *["-"] * 4,  # costs, but 1 and 3, which lists of seeds have too
        "weights:",
    ]
    comments = [line.partition(" #")[2] for line in before if " #" in line]
    assert [line.partition(" #")[2] for line in after if " #" in line] == comments
    assert read_params(path).grid.mlp.head == ("mlp2", "gru")
