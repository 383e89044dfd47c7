"""Saving an imputer to a folder, and reading it without unpickling anything."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imputune import CSAIImputer, UserError
from imputune.api import imputer_folder


@pytest.fixture
def saved(fitted, tmp_path):
    """The folder of the fitted imputer."""
    fitted.save(tmp_path / "imputer")
    return tmp_path / "imputer"


def refusal(folder, **options):
    """Return the line with which a folder is refused."""
    with pytest.raises(UserError) as refused:
        CSAIImputer.load(folder, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def edit(folder, change):
    """Change the content of imputer.json in place."""
    path = folder / "imputer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_saved_imputer_is_the_same(fitted, saved, values):
    """Two open files; the loaded imputer has the same parameters and attributes, and gives the same bits."""
    assert {path.name for path in saved.iterdir()} == {"imputer.json", "weights.safetensors"}
    loaded = CSAIImputer.load(str(saved))
    assert loaded.get_params() == fitted.get_params()
    assert np.array_equal(loaded.transform(values), fitted.transform(values))
    assert np.array_equal(loaded.represent(values), fitted.represent(values))
    assert np.array_equal(loaded.validation_stays_, fitted.validation_stays_)
    assert loaded.history_.equals(fitted.history_)
    names = ("n_hours_in_", "n_features_in_", "best_epoch_")
    assert [getattr(loaded, name) for name in names] == [getattr(fitted, name) for name in names]


def test_no_record_is_saved(saved, values):
    """None of the observed values stands in the folder's files, as text or as bytes."""
    content = b"".join(path.read_bytes() for path in saved.iterdir())
    for value in values[~np.isnan(values)][:200]:
        assert np.float32(value).tobytes() not in content
        assert f"{value:.6f}"[:8].encode() not in content


def test_saving_again_replaces_an_imputer_and_nothing_else(fitted, saved, tmp_path, values):
    """A folder with other files, and a file, are refused; what is there stays."""
    other = CSAIImputer(**fitted.get_params() | {"seed": 7}).fit(values)
    other.save(saved)
    assert CSAIImputer.load(saved).seed == 7
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(notes.txt\)"):
        fitted.save(saved)
    with pytest.raises(UserError, match="is a file: choose a folder"):
        fitted.save(saved / "notes.txt")
    assert CSAIImputer.load(saved).seed == 7


def test_loading_on_another_device(saved):
    """The parameter changes; a wrong one is named."""
    assert CSAIImputer.load(saved, device="cpu").device == "cpu"
    assert refusal(saved, device="gpu").startswith("device = 'gpu': input should be ")


def test_altered_weights_are_refused(saved):
    """One number differs, in a file that is sound."""
    weights = load_file(saved / "weights.safetensors")
    weights["scaler.mean"][0] += 1e-3
    save_file(weights, saved / "weights.safetensors")
    assert refusal(saved).startswith(f"{saved / 'weights.safetensors'} has changed since it was saved: restore")


def test_an_altered_description_is_refused(saved):
    """Parameters, and numbers that only describe."""
    before = (saved / "imputer.json").read_text()
    for change in (
        lambda content: content["about"]["parameters"].update(masking_rate=0.2),
        lambda content: content["about"]["history"][0].update(train_loss=0.1),
        lambda content: content["about"].update(best_epoch=0 if content["about"]["best_epoch"] else 1),
    ):
        edit(saved, change)
        assert refusal(saved).startswith(f"{saved / 'imputer.json'} has changed since it was saved")
        (saved / "imputer.json").write_text(before)
    CSAIImputer.load(saved)


def test_other_formats_are_refused(saved):
    """The line has both numbers, and what to do."""
    edit(saved, lambda content: content.update(format=2))
    line = f"{saved} was written by another version of imputune (format 2, this version reads 1): "
    assert refusal(saved) == line + "fit and save the imputer again"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": "one"}', "\x80"])
def test_a_broken_description_is_refused(saved, text):
    """Whatever stands in it."""
    (saved / "imputer.json").write_text(text, encoding="latin-1")
    assert refusal(saved).startswith(f"{saved / 'imputer.json'} is broken: restore its files")


def test_missing_files_are_refused(saved, tmp_path):
    """The line names the first that is missing."""
    for name in ("weights.safetensors", "imputer.json"):
        (saved / name).unlink()
        assert refusal(saved).startswith(f"{saved} is no saved imputer (No such file or directory: {saved / name}): ")
    shutil.rmtree(saved)
    assert refusal(saved).startswith(f"{saved} is no saved imputer")


def test_weights_of_other_sizes_are_refused(saved, monkeypatch):
    """Also by someone who corrects the checksums: the sizes must fit; a pickle in their place is not read."""

    def checksums(content):
        about = imputer_folder.About.model_validate(content["about"])
        weights = (saved / "weights.safetensors").read_bytes()
        content.update(about_sha256=about.sha256, weights_sha256=imputer_folder._checksum(weights))

    edit(saved, lambda content: content["about"]["parameters"].update(hidden_size=9))
    edit(saved, checksums)
    assert refusal(saved).startswith(f"the files in {saved} do not fit together (RuntimeError): restore its files")
    edit(saved, lambda content: content["about"]["parameters"].update(hidden_size=8, unknown=1))
    edit(saved, checksums)
    assert refusal(saved).startswith(f"the files in {saved} do not fit together (TypeError)")
    edit(saved, lambda content: content["about"]["parameters"].pop("unknown"))
    (saved / "weights.safetensors").write_bytes(b"\x80\x04N.")
    edit(saved, checksums)
    assert refusal(saved).startswith(f"{saved / 'weights.safetensors'} is broken: restore its files")
