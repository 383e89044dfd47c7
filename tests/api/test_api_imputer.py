"""CSAIImputer: what scikit-learn's check_estimator asks of an estimator, as far as it fits arrays of three axes."""

import copy
import inspect
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

import imputune
from imputune import CSAIImputer, UserError
from imputune.api.values import choose_validation
from imputune.data.folds import Fold
from imputune.data.splits import fit_and_split
from imputune.runtime.recorder import SilentRecorder
from imputune.settings.file import read_params
from imputune.training import pretrain
from projects import ROOT


def refusal(call, *arguments):
    """Return the one line with which a call is refused: a UserError for imputune, a ValueError for scikit-learn."""
    with pytest.raises(ValueError, match=r"\S") as refused:
        call(*arguments)
    assert isinstance(refused.value, UserError)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def with_one(values, cell):
    """Return the values with another number in one observed cell."""
    changed = values.copy()
    changed[tuple(np.argwhere(~np.isnan(values))[7])] = cell
    return changed


def test_missing_cells_are_filled_and_observed_cells_stay(fitted, values):
    """Every observed cell is the same, bit for bit; every other one is a finite number near those of its variable."""
    before = values.copy()
    filled = fitted.transform(values)
    observed = ~np.isnan(values)
    assert (filled.shape, filled.dtype) == (values.shape, values.dtype)
    assert filled[observed].tobytes() == values[observed].tobytes()
    assert np.isfinite(filled).all()
    assert np.abs(filled[~observed] - np.nanmean(values)).max() < 40
    assert np.array_equal(values, before, equal_nan=True)


def test_learning_beats_the_mean(values, tiny):
    """With more epochs, cells it has not seen are estimated better than by the mean of their variable."""
    hidden = np.zeros(values.shape, dtype=bool)
    hidden[::2, 3] = ~np.isnan(values[::2, 3])
    shown = np.where(hidden, np.nan, values)
    filled = CSAIImputer(**tiny | {"epochs": 40}).fit_transform(shown)
    mean = np.broadcast_to(np.nanmean(shown, axis=(0, 1)), values.shape)
    errors = [np.abs(each - values)[hidden].mean() for each in (filled, mean)]
    assert errors[0] < 0.7 * errors[1]


def test_it_trains_by_the_loop_of_pretrain(values, tiny, cohort, make_params):
    """The weights are, bit for bit, those of `imputune pretrain` on the same training and validation stays."""
    imputer = CSAIImputer(**tiny).fit(cohort.values_NTD)
    validation = imputer.validation_stays_
    train = np.setdiff1d(np.arange(len(cohort.values_NTD)), validation)
    fold = Fold(number=0, train=train, validation=validation, test=validation)
    params = make_params(pretrain_epochs=3, pretrain={"batch_size": 16})
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    expected, best_epoch, history = pretrain.fit("csai", data, params, SilentRecorder())
    pairs = zip(imputer.imputer_.module.parameters(), expected.module.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert imputer.best_epoch_ == best_epoch
    assert imputer.history_.to_dict("records") == history


def test_parameters_are_those_of_params_yaml():
    """Each default is the one of the committed params.yaml, and every key of its sections is a parameter."""
    params = read_params(ROOT / "params.yaml")
    expected = {f"masking_{name}": value for name, value in params.masking.model_dump().items()}
    for section in (params.csai, params.pretrain, params.scaling):
        expected |= section.model_dump()
    expected |= {"seed": params.seed, "device": params.device}
    expected["epochs"] = params.budget_of("physionet2012").pretrain_epochs
    own = {"validation_fraction": 0.2, "verbose": False}
    assert CSAIImputer().get_params() == expected | own


def test_the_constructor_only_stores(tiny):
    """Parameters are stored as they are, also wrong ones, and all go by name; nothing else is set."""
    imputer = CSAIImputer(epochs=-1, seed="x")
    assert (imputer.epochs, imputer.seed) == (-1, "x")
    assert vars(imputer).keys() == imputer.get_params().keys()
    kinds = {each.kind for each in inspect.signature(CSAIImputer).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def test_clone_and_set_params(fitted, values):
    """A clone has the parameters and nothing that was learned; set_params changes one and knows no others."""
    cloned = clone(fitted)
    assert cloned.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        cloned.transform(values)
    assert cloned.set_params(seed=7).seed == 7
    with pytest.raises(ValueError, match="Invalid parameter 'hidden'"):
        cloned.set_params(hidden=3)


def test_nothing_is_done_before_fit(values, tmp_path):
    """Transform, represent and save ask for fit."""
    for call in (
        lambda new: new.transform(values),
        lambda new: new.represent(values),
        lambda new: new.save(tmp_path / "imputer"),
    ):
        with pytest.raises(NotFittedError):
            call(CSAIImputer())


def test_fit_again_forgets(fitted, values, tiny):
    """An imputer that was fitted on other values gives, after fit, what a new one gives; fit returns the imputer."""
    used = CSAIImputer(**tiny).fit(values[:40, :5, :3])
    assert (used.n_hours_in_, used.n_features_in_) == (5, 3)
    assert used.fit(values) is used
    assert np.array_equal(used.transform(values), fitted.transform(values))
    assert (used.n_hours_in_, used.n_features_in_) == (6, 4)


def test_same_seed_same_bits(fitted, values, tiny):
    """Another seed gives other numbers; the outcome, and PyTorch's and NumPy's own seeds, change nothing."""
    torch.manual_seed(1)
    np.random.seed(1)
    same = CSAIImputer(**tiny).fit(values, y=np.ones(60))
    assert np.array_equal(same.transform(values), fitted.transform(values))
    other = CSAIImputer(**tiny | {"seed": 7}).fit(values)
    assert not np.array_equal(other.transform(values), fitted.transform(values))
    assert not np.array_equal(other.validation_stays_, fitted.validation_stays_)


def test_a_stay_alone_and_in_another_order(fitted, values):
    """A stay gets the same, to float32's rounding, alone and in a batch in any order."""
    together, state = fitted.transform(values), fitted.represent(values)
    alone = np.concatenate([fitted.transform(values[n : n + 1]) for n in range(60)])
    assert np.allclose(alone, together, rtol=1e-5, atol=1e-4)
    order = np.random.default_rng(2).permutation(60)
    assert np.allclose(fitted.transform(values[order]), together[order], rtol=1e-5, atol=1e-4)
    assert np.allclose(fitted.represent(values[order]), state[order], atol=1e-5)


def test_the_hidden_state(fitted, values):
    """One row a stay, as long as the hidden size; it differs between stays."""
    state = fitted.represent(values)
    assert (state.shape, state.dtype) == ((60, 8), np.float32)
    assert len(np.unique(state, axis=0)) == 60


def test_in_a_pipeline(fitted, values, tiny):
    """It is a transformer for NaN and three axes; in a pipeline it gives what it gives alone."""
    read = get_tags(fitted).input_tags
    assert (read.three_d_array, read.two_d_array, read.allow_nan) == (True, False, True)
    assert not get_tags(fitted).target_tags.required
    pipeline = make_pipeline(CSAIImputer(**tiny))
    assert np.array_equal(pipeline.fit_transform(values), fitted.transform(values))


@pytest.mark.parametrize("dtype", [np.float32, ">f8", np.int64])
def test_other_types_of_numbers(fitted, values, dtype):
    """float32 stays float32, another order of bytes is read, whole numbers become float64 and none is missing."""
    given = np.nan_to_num(values).astype(dtype) if dtype is np.int64 else values.astype(dtype)
    filled = fitted.transform(given)
    assert filled.dtype == (np.float32 if dtype is np.float32 else np.float64)
    assert np.array_equal(filled[~np.isnan(given)], given[~np.isnan(given)])
    if dtype is np.int64:
        assert np.array_equal(filled, given)


def test_lists_views_and_tensors_are_arrays(fitted, values):
    """What NumPy makes an array of is read: nested lists, a view with gaps, a tensor, columns first in memory."""
    expected = fitted.transform(values)
    wide = np.repeat(values, 2, axis=2)
    for given in (values.tolist(), wide[:, :, ::2], torch.tensor(values), np.asfortranarray(values)):
        assert np.array_equal(fitted.transform(given), expected)


def test_what_is_no_array_of_values_is_refused(fitted, values):
    """One line each, in fit and in transform: axes, types, masked arrays, data frames, infinite numbers, nothing."""
    wrong = {
        "values have 2 axes, shape (6, 4): give an array (stays, hours, variables) ": values[0],
        "values have 2 axes, shape (60, 4): ": pd.DataFrame(values[:, 0]),
        "values have the type object: give float32, float64 or whole numbers": np.full((2, 6, 4), None),
        "values have the type <U3": np.full((2, 6, 4), "1.5"),
        "values have the type bool": np.isnan(values),
        "values have the type complex128": values.astype(complex),
        "values have the type float16": values.astype(np.float16),
        "values are a masked array": np.ma.masked_invalid(values),
        "values have shape (0, 6, 4)": values[:0],
        "values have shape (60, 6, 0)": values[:, :, :0],
        "is inf: give finite numbers, up to 3.4e38, or NaN": with_one(values, np.inf),
        "is 1e+39: give finite numbers": with_one(values, 1e39),
        "their rows differ in length": [[[1.0, 2.0]], [[1.0]]],
    }
    for line, given in wrong.items():
        assert line in refusal(fitted.transform, given)
        assert line in refusal(clone(fitted).fit, given)


def test_other_hours_or_variables_are_refused(fitted, values):
    """The line has both."""
    for given in (values[:, :5], values[:, :, :3]):
        line = refusal(fitted.transform, given)
        assert f"values have {given.shape[1]} hours and {given.shape[2]} variables" in line
        assert "fitted on 6 hours and 4 variables" in line


@pytest.mark.parametrize(
    ("parameter", "line"),
    [
        ({"epochs": 0}, "epochs = 0: input should be greater than 0"),
        ({"masking_rate": 1.5}, "masking_rate = 1.5: input should be less than 1"),
        ({"masking_pattern": "blocks"}, "masking_pattern = 'blocks': input should be 'uniform' or 'non_uniform'"),
        ({"validation_fraction": 0.0}, "validation_fraction = 0.0: input should be greater than 0"),
        ({"hidden_size": 8.5}, "hidden_size = 8.5: input should be a valid integer"),
        ({"attention_heads": 3}, "channels must be a multiple of attention_heads, 3"),
        ({"learning_rate": float("nan")}, "learning_rate = nan: input should be a finite number"),
        ({"device": "gpu"}, "device = 'gpu': input should be 'auto', 'cpu' or 'cuda'"),
        ({"seed": None}, "seed = None: input should be a valid integer"),
    ],
)
def test_a_wrong_parameter_is_named(tiny, values, parameter, line):
    """It is refused by fit, not before, in one line."""
    assert refusal(CSAIImputer(**tiny | parameter).fit, values) == line


def test_a_gpu_that_is_not_there(tiny, values, monkeypatch):
    """The line names the parameter, not params.yaml."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refusal(CSAIImputer(**tiny | {"device": "cuda"}).fit, values)
    assert line == "device = 'cuda', but PyTorch finds no GPU here: set device to 'auto' or 'cpu'"


def test_training_that_diverges(tiny, values):
    """The line names the parameter to lower."""
    with pytest.raises(UserError, match=r"^training diverged: lower learning_rate, 1e\+09$"):
        CSAIImputer(**tiny | {"learning_rate": 1e9}).fit(values)


def test_a_variable_that_no_stay_has(fitted, values):
    """Fit refuses it, by its place; transform fills it, as any other missing cell."""
    empty = values.copy()
    empty[:, :, 2] = np.nan
    assert refusal(clone(fitted).fit, empty) == "no stay has a value of variable 2: leave this variable out"
    assert np.isfinite(fitted.transform(empty)).all()


def test_stays_without_any_value(fitted, values, tiny):
    """They may stand among the others in fit; transform gives all of them the estimate of an empty record."""
    some = np.concatenate([values, np.full((5, 6, 4), np.nan)])
    filled = CSAIImputer(**tiny).fit(some).transform(some)
    assert np.isfinite(filled).all()
    assert np.allclose(filled[60], filled[61:], rtol=1e-5)
    assert refusal(clone(fitted).fit, np.full((5, 6, 4), np.nan)).startswith("no stay has a value of variable 0")


def test_validation_stays_are_drawn_and_train_nothing(fitted, values, tiny):
    """A fifth of the stays, ascending; the scaler knows none of their values."""
    chosen = fitted.validation_stays_
    assert (len(chosen), list(chosen)) == (12, sorted(set(chosen)))
    changed = values.copy()
    changed[chosen] += 1000
    again = CSAIImputer(**tiny).fit(changed)
    assert np.array_equal(again.validation_stays_, chosen)
    assert np.array_equal(again.scaler_.mean_D, fitted.scaler_.mean_D)


def test_the_only_stay_with_a_variable_trains():
    """Whatever the seed: a scaler could not be fitted otherwise."""
    observed = np.ones((10, 6, 4), dtype=bool)
    observed[1:, :, 3] = False
    for seed in range(20):
        assert 0 not in choose_validation(observed, 0.5, seed)


def test_too_few_stays(fitted, values):
    """One stay cannot both train and choose the epoch; nor can stays with nothing that could be masked."""
    assert refusal(clone(fitted).fit, values[:1]).startswith("1 stays are too few: ")
    sparse = np.full((10, 6, 4), np.nan)
    sparse[:, 0] = 1.0
    chosen = choose_validation(~np.isnan(sparse), 0.2, fitted.seed)
    sparse[chosen] = np.nan
    assert "no observed cell of the 2 validation stays is masked" in refusal(clone(fitted).fit, sparse)


def test_numbers_of_numpy_are_parameters(values, tiny, tmp_path):
    """As a search over parameters gives them; they are saved too."""
    given = tiny | {"epochs": np.int64(1), "masking_rate": np.float64(0.2), "seed": np.int32(3)}
    imputer = CSAIImputer(**given).fit(values)
    imputer.save(tmp_path / "imputer")
    assert CSAIImputer.load(tmp_path / "imputer").get_params() == imputer.get_params()


def test_copies_and_pickles_predict_the_same(fitted, values):
    """As scikit-learn's own tools make them for parallel work."""
    expected = fitted.transform(values)
    for other in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):  # noqa: S301
        assert np.array_equal(other.transform(values), expected)


def test_verbose_prints_a_line_an_epoch(values, tiny, capsys):
    """On standard output, where a notebook shows it; without verbose nothing is printed."""
    CSAIImputer(**tiny, verbose=1).fit(values)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"CSAI: epoch {epoch} of 3" for epoch in (1, 2, 3)]
    CSAIImputer(**tiny).fit(values)
    assert capsys.readouterr() == ("", "")


def test_it_is_the_public_one():
    """A notebook imports it by this name."""
    assert imputune.CSAIImputer is CSAIImputer
