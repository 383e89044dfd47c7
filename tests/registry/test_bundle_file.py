import json
import pickle
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from imputune.artifacts.stage_files import weights_file
from imputune.data.window import Window
from imputune.errors import UserError
from imputune.evaluation.calibration import CalibrationLine
from imputune.registry.bundle import BundleAbout
from imputune.registry.bundle_file import copy_bundle, read_bundle, write_bundle


def content_of(folder):
    """Return bundle.json as plain values."""
    return json.loads((folder / "bundle.json").read_text())


def replace_content(folder, content):
    """Write another bundle.json."""
    (folder / "bundle.json").write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def written(tmp_path, make_about, train):
    """The folder and the checksum of a bundle of classifiers."""
    about = make_about()
    return tmp_path, write_bundle(tmp_path, about, train(about))


def in_number2(content):
    """Return a bundle.json as earlier versions of imputune wrote it: flat, its hidden size called `hidden`."""
    about = content["about"]
    sizes = about["sizes"]
    return {
        "format": 2,
        "dataset": about["dataset"],
        "variables": about["variables"],
        "sizes": {
            "variables": sizes["variables"],
            "hours": sizes["hours"],
            "hidden": sizes["hidden_size"],
            "channels": sizes["channels"],
            "attention_heads": sizes["attention_heads"],
            "feedforward": sizes["feedforward"],
        },
        "head": about["head"],
        "input": about["input"],
        "folds": about["folds"],
        "threshold": about["threshold"],
        "sha256": content["sha256"],
    }


def test_a_bundle_is_read_as_it_was_written(written, make_about, train):
    """Description, scalers and weights come back bit-equal."""
    folder, checksum = written
    bundle = read_bundle(folder, checksum)
    assert bundle.about == make_about()
    assert bundle.about.threshold == 0.1 + 0.2
    for model, fold in zip(bundle.models, train(bundle.about), strict=True):
        assert model.fold == fold.fold
        for name, array in model.scaler.to_arrays().items():
            np.testing.assert_array_equal(array, fold.weights[name])
        for prefix, module in (("imputer", model.imputer), ("head", model.predictor.classifier.head)):
            for name, tensor in module.state_dict().items():
                np.testing.assert_array_equal(tensor.numpy(), fold.weights[f"{prefix}.{name}"])
        assert not model.predictor.classifier.training


def test_bundle_json_has_the_present_format(written):
    """The file says its format, what the bundle is made of, and each fold's checksum."""
    folder, _ = written
    content = content_of(folder)
    assert content["format"] == 4
    assert content["about"] == {
        "dataset": "synthetic",
        "variables": [
            {"name": "HR", "unit": "beats/min"},
            {"name": "Temp", "unit": "C"},
            {"name": "pH", "unit": "pH"},
        ],
        "static": [],
        "sizes": {
            "variables": 3,
            "hours": 48,
            "hidden_size": 4,
            "channels": 4,
            "attention_heads": 2,
            "feedforward": 6,
        },
        "head": "mlp2",
        "input": "hidden",
        "mlp_width": 128,
        "folds": [0, 2],
        "threshold": 0.1 + 0.2,
        "threshold_rule": None,
        "recalibration": None,
        "members": [],
    }
    assert content["members_sha256"] == []
    assert list(content["sha256"]) == ["0", "2"]
    assert all(re.fullmatch("[0-9a-f]{64}", checksum) for checksum in content["sha256"].values())


def test_a_bundle_of_imputers_has_no_classifiers(tmp_path, imputers_about, train):
    """Without a head, only the imputers are read."""
    write_bundle(tmp_path, imputers_about, train(imputers_about))
    bundle = read_bundle(tmp_path)
    assert bundle.about == imputers_about
    assert [model.predictor for model in bundle.models] == [None, None]


def test_reading_unpickles_nothing(written, monkeypatch):
    """No unpickling function is called."""

    def trapped(*arguments, **options):
        raise AssertionError("reading a bundle must unpickle nothing")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, trapped)
    assert len(read_bundle(written[0]).models) == 2


def test_altered_weights_are_refused(written):
    """One changed byte, or a missing file, is an error that names the fold's file."""
    folder, checksum = written
    path = weights_file(folder, 2)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_bundle(folder, checksum)
    assert str(caught.value) == (
        "the weights of fold 2 have changed since they were registered (their sha256 differs): "
        f"restore {path}, or fine-tune again"
    )
    path.unlink()
    with pytest.raises(UserError, match=r"^the bundle cannot be read \(.*fold-2.safetensors.*\): restore its files"):
        read_bundle(folder, checksum)


def test_an_altered_description_is_refused(written):
    """With the checksum of its registration, a changed bundle.json is an error."""
    folder, checksum = written
    content = content_of(folder)
    content["about"]["threshold"] = 0.99
    replace_content(folder, content)
    with pytest.raises(UserError) as caught:
        read_bundle(folder, checksum)
    assert str(caught.value) == (
        f"{folder / 'bundle.json'} has changed since it was registered: restore it, or fine-tune again"
    )


@pytest.mark.parametrize("number", [2, 3])
def test_a_broken_description_is_refused(written, number):
    """Without that checksum too, a bundle.json with other fields or types is one line that names the place."""
    folder, _ = written
    content = content_of(folder) if number == 3 else in_number2(content_of(folder))
    broken = [
        ({**content, "sha256": {}}, "sha256 must have one checksum for each fold"),
        ({**content, "more": 1}, r"bundle\.json\.more: extra inputs are not permitted"),
        ({key: content[key] for key in content if key != "sha256"}, r"bundle\.json\.sha256: field required"),
        ([], r"bundle\.json: input should be an object"),
        ("{", r"bundle\.json: invalid JSON"),
        ({}, r"bundle\.json\.format: field required"),
    ]
    about = content if number == 2 else content["about"]
    place = r"bundle\.json" if number == 2 else r"bundle\.json\.about"
    for changed, problem in (
        ({**about, "sizes": []}, rf"{place}\.sizes: input should be"),
        ({**about, "sizes": {**about["sizes"], "depth": 3}}, rf"{place}\.sizes\.depth: "),
        ({**about, "head": "mlp9"}, rf"{place}\.head: input should be"),
        ({**about, "threshold": None}, "must be given together"),
    ):
        broken.append((changed if number == 2 else {**content, "about": changed}, problem))
    for changed, problem in broken:
        replace_content(folder, changed)
        with pytest.raises(UserError, match=rf"^the bundle cannot be read \(.*{problem}.*restore its files") as caught:
            read_bundle(folder)
        assert "\n" not in str(caught.value)


def test_number2_is_read(written, values_NTD):
    """A bundle of an earlier version has the same models and risks; its MLPs were 128 wide."""
    folder, _ = written
    present = read_bundle(folder)
    replace_content(folder, in_number2(content_of(folder)))
    earlier = read_bundle(folder)
    assert earlier.about == present.about
    assert earlier.about.mlp_width == 128
    np.testing.assert_array_equal(earlier.risk_by_fold(values_NTD), present.risk_by_fold(values_NTD))


def test_number2_of_imputers_is_read(tmp_path, imputers_about, train):
    """A bundle of imputers of an earlier version has neither head nor width."""
    write_bundle(tmp_path, imputers_about, train(imputers_about))
    replace_content(tmp_path, in_number2(content_of(tmp_path)))
    assert read_bundle(tmp_path).about == imputers_about


def test_altered_weights_of_number2_are_refused(written):
    """The checksums of an earlier version are checked too."""
    folder, _ = written
    replace_content(folder, in_number2(content_of(folder)))
    weights_file(folder, 0).write_bytes(weights_file(folder, 2).read_bytes())
    with pytest.raises(UserError, match="the weights of fold 0 have changed"):
        read_bundle(folder)


@pytest.mark.parametrize("number", [1, 5])
def test_other_formats_are_refused(written, number):
    """An unknown format is one line that says what to run."""
    folder, _ = written
    replace_content(folder, content_of(folder) | {"format": number})
    with pytest.raises(UserError) as caught:
        read_bundle(folder)
    assert str(caught.value) == (
        f"the bundle is of another version of imputune (format {number}, this version reads 2 to 4): "
        "run `imputune finetune` again, or load it with that version"
    )


def test_every_size_is_stored(written, make_about):
    """bundle.json holds each of the numbers that fix the imputer; earlier versions can read it if bins have an hour."""
    sizes = asdict(make_about().sizes)
    assert content_of(written[0])["about"]["sizes"] | {"bin_hours": 1} == sizes
    about = make_about()
    longer = about.model_copy(update={"sizes": replace(about.sizes, bin_hours=2)})
    again = BundleAbout.model_validate_json(longer.model_dump_json())
    assert again.sizes == longer.sizes
    assert again.window == Window(hours=2 * about.sizes.hours, bin_hours=2)


@pytest.mark.parametrize(
    ("part", "key", "value", "cause"),
    [
        ("sizes", "hidden_size", 0, "the bundle's weights do not fit the sizes, head or width in bundle.json"),
        ("sizes", "hidden_size", 5, "the bundle's weights do not fit the sizes, head or width in bundle.json"),
        ("sizes", "hours", -1, "the bundle's weights do not fit the sizes, head or width in bundle.json"),
        ("sizes", "channels", 10**30, "the bundle's weights do not fit the sizes, head or width in bundle.json"),
        ("sizes", "attention_heads", 3, "the bundle's weights do not fit the sizes, head or width in bundle.json"),
        ("sizes", "bin_hours", 0, "a bin must have an hour or more"),
        ("about", "mlp_width", 7, "the bundle's weights do not fit the sizes, head or width in bundle.json"),
        ("about", "head", "gru", "the bundle's weights do not fit the sizes, head or width in bundle.json"),
        ("sizes", "variables", 2, "variables must have different names, as many as sizes.variables"),
        ("about", "variables", [], "variables must have different names, as many as sizes.variables"),
        ("about", "folds", [0, 0], "folds must name each fold once"),
        ("about", "threshold", 5, "threshold must be from 0 to 1, got 5"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(written, part, key, value, cause):
    """Numbers in bundle.json with which no network can be built, or another one, are an error of one line."""
    folder, _ = written
    content = content_of(folder)
    (content["about"]["sizes"] if part == "sizes" else content["about"])[key] = value
    if key == "folds":
        content["sha256"] = {"0": content["sha256"]["0"]}
    replace_content(folder, content)
    with pytest.raises(UserError) as caught:
        read_bundle(folder)
    assert cause in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_bundle_from_before_recalibration_is_read(written, make_about):
    """Without the fields that were added later, nothing is recalibrated."""
    folder, _ = written
    content = content_of(folder)
    del content["about"]["threshold_rule"], content["about"]["recalibration"]
    replace_content(folder, content)
    assert read_bundle(folder).about == make_about()


def test_a_copied_bundle_has_the_same_weights_and_another_description(written, make_about, tmp_path_factory):
    """Files of weights are equal to the byte; the checksum is that of the new bundle.json; the source stays."""
    folder, checksum = written
    target = tmp_path_factory.mktemp("copied")
    line = CalibrationLine(intercept=-0.25, slope=0.75)
    copied = copy_bundle(folder, target, make_about(recalibration=line))
    assert copied != checksum
    bundle = read_bundle(target, copied)
    assert bundle.about == make_about(recalibration=line)
    assert content_of(target)["sha256"] == content_of(folder)["sha256"]
    for fold in (0, 2):
        assert weights_file(target, fold).read_bytes() == weights_file(folder, fold).read_bytes()
    assert read_bundle(folder, checksum).about == make_about()
    (folder / "bundle.json").unlink()
    with pytest.raises(UserError, match="cannot be copied"):
        copy_bundle(folder, target, make_about())


@pytest.mark.parametrize("line", [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_recalibration_that_is_none_is_refused(make_about, line):
    """A slope of 0 or below turns the order of the stays round; NaN and infinity are no numbers to correct with."""
    with pytest.raises(ValidationError, match="recalibration must have a slope above 0"):
        make_about(recalibration=CalibrationLine(intercept=line[0], slope=line[1]))
