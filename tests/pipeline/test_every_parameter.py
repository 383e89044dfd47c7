"""Every key of params.yaml has an effect: each is changed alone, and something that it decides is seen to change.

The parameters are tiny ones: networks of width 8, two epochs, 54 training stays of 6 hours and 4 variables.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from ruamel.yaml import YAML

from fold_fixtures import EAGER
from imputune.artifacts.stage_output import MadeFrom, Origin, TrainedFold, TrainingOutput
from imputune.cli.word_lists import imputer_names
from imputune.data.cohort import Cohort, Variable
from imputune.data.folds import COHORTS, Fold, divide, draw_folds
from imputune.data.outcome_choice import chosen_outcome
from imputune.data.raw.mimic3 import extraction
from imputune.data.splits import fit_and_split
from imputune.data.static import AGE, GENDER, ICU_TYPE
from imputune.datasets import synthetic
from imputune.errors import UserError
from imputune.evaluation.assessed_imputers import Assessment, summarise_imputer
from imputune.evaluation.gates import TestStays, paired_difference, score_gates
from imputune.evaluation.subgroups import score_cohort
from imputune.imputers.build import new_imputer
from imputune.pipeline import variant_training
from imputune.pipeline.inputs import PretrainedImputer
from imputune.pipeline.project import DividedCohort, Project
from imputune.pipeline.recording import find_threshold
from imputune.pipeline.variant_work import FinetuneRequest, VariantWork
from imputune.protocol.choice import blend_members, grid_variants
from imputune.protocol.rival_choice import PYPOTS, listed_rivals
from imputune.protocol.rivals import Rival
from imputune.protocol.variants import make_variant
from imputune.runtime.device import choose_device
from imputune.runtime.recorder import SilentRecorder
from imputune.runtime.workers import LocalPool, chosen_engine
from imputune.settings.names import RivalName
from imputune.settings.schema import Params
from imputune.training import assess
from imputune.training.blend import BlendJob, blend_fold
from imputune.training.finetune import FinetuneJob, finetune_fold
from imputune.training.non_neural import fit_non_neural_fold
from imputune.training.pretrain import PretrainJob, pretrain_fold
from imputune.training.rivals import RivalJob, new_rival, train_rival_fold
from mimic3_raw import tables, write

pytestmark = pytest.mark.slow

PARAMS = Path(__file__).parents[2] / "params.yaml"
needs_pypots = pytest.mark.skipif(
    find_spec("pypots") is None, reason="PyPOTS is not installed: pip install -e '.[pypots]'"
)
EPOCHS = {"pretrain_epochs": 2, "frozen_epochs": 30, "unfrozen_epochs": 2}
ATTENTIVE = ("saits", "itransformer", "patchtst")
HEADS_OF_TWO = {"n_layers": 1, "n_heads": 2, "d_k": 4, "d_v": 4, "d_ffn": 8}
TINY = {
    **{
        f"budget.{dataset}.{name}": count
        for dataset in ("synthetic", "physionet2012", "mimic3")
        for name, count in EPOCHS.items()
    },
    "device": "cpu",
    "folds.count": 3,
    "synthetic.stays": 30,
    "csai.hidden_size": 8,
    "csai.channels": 8,
    "csai.attention_heads": 2,
    "csai.feedforward": 8,
    "heads.mlp_width": 8,
    "pretrain.batch_size": 16,
    "finetune.batch_size": 16,
    "schedules.optuna.trials": 3,
    "schedules.optuna.startup_trials": 1,
    "non_neural.xgboost.trees": 20,
    **{f"non_neural.xgboost.{name}": value for name, value in EAGER.items()},
    "blend.scale": "calibrated",
    "pypots.saits.n_layers": 1,
    "pypots.saits.n_heads": 2,
    "pypots.saits.d_k": 4,
    "pypots.saits.d_v": 4,
    "pypots.saits.d_ffn": 8,
    "pypots.csdi.n_layers": 1,
    "pypots.csdi.n_heads": 2,
    "pypots.csdi.n_channels": 8,
    "pypots.csdi.d_time_embedding": 8,
    "pypots.csdi.d_feature_embedding": 4,
    "pypots.csdi.d_diffusion_embedding": 8,
    "pypots.gpvae.latent_size": 4,
    "pypots.gpvae.encoder_sizes": [8],
    "pypots.gpvae.decoder_sizes": [8],
    "pypots.gpvae.window_size": 2,
    "rivals.raw": ["seft"],
    "rivals.epochs": 3,
    "rivals.rates": [0.01],
    "rivals.rate_epochs": 1,
    "rivals.seft": {"width": 8, "layers": 2, "heads": 2, "time_channels": 4, "dropout": 0.1},
    "rivals.mtan": {"hidden_size": 8, "heads": 1, "time_channels": 4, "reference_points": 4},
    "rivals.ipnets": {"hidden_size": 8, "dropout": 0.1, "reconstruction_weight": 1.0},
    "rivals.raindrop": {"channels": 4, "time_channels": 4, "attention": 4},
    "rivals.strats": {"width": 8, "layers": 1, "heads": 2, "feedforward": 8, "dropout": 0.1},
    "rivals.brits.rnn_hidden_size": 8,
    "rivals.grud.rnn_hidden_size": 8,
    **{f"rivals.{name}.{size}": value for name in ATTENTIVE for size, value in HEADS_OF_TWO.items()},
    "rivals.patchtst.patch_size": 3,
    "rivals.patchtst.patch_stride": 2,
    "assess.patterns": ["uniform", "blocks"],
    "assess.rates": [0.1, 0.3],
    "assess.ranking.pattern": "uniform",
    "promote.resamples": 20,
    "evaluate.resamples": 20,
}


@dataclass(frozen=True)
class World:
    """What the observations below look at: a small cohort, its folds, one fold's pretrained CSAI, a folder."""

    cohort: Cohort
    folds: list[Fold]
    csai: TrainedFold
    folder: Path

    @property
    def pretrained(self) -> dict[str, torch.Tensor]:
        """The weights of CSAI on the first fold."""
        return {name: torch.from_numpy(array) for name, array in self.csai.weights.items()}


Observe = Callable[[Params, World], object]


@dataclass(frozen=True)
class Effect:
    """A key's other value, what then changes, and what else must hold for it to be seen.

    refused: the other value does not go with the rest, and params.yaml is refused with the key's name.
    """

    value: Any
    observe: Observe
    given: Mapping[str, Any] = field(default_factory=dict)
    refused: bool = False


def leaves(content: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the dotted name of every key of params.yaml that is no section; a list is one key."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{above}{name}.")
        else:
            yield above + name


CONTENT = YAML(typ="safe", pure=True).load(PARAMS)
KEYS = list(leaves(CONTENT))


def params_with(changes: Mapping[str, Any]) -> Params:
    """Return params.yaml with the tiny values, and then these, at their dotted names."""
    content = YAML(typ="safe", pure=True).load(PARAMS)
    for name, value in {**TINY, **changes}.items():
        *above, key = name.split(".")
        section = content
        for each in above:
            section = section[each]
        section[key] = value
    return Params.model_validate(content)


def trained(fold: TrainedFold) -> object:
    """Return what training left: weights bit by bit, curve, trials, predictions."""
    weights = {name: (array.shape, array.tobytes()) for name, array in fold.weights.items()}
    risks = fold.predictions["risk"].to_numpy().tobytes() if len(fold.predictions) else b""
    return weights, fold.history, [(trial.learning_rate, trial.state, trial.curve) for trial in fold.trials], risks


def pretraining(params: Params, world: World) -> object:
    """Pretrain CSAI on one fold."""
    job = PretrainJob(cohort=world.cohort, fold=world.folds[0], params=params)
    return trained(pretrain_fold(job, SilentRecorder()))


def finetuning(*words: str) -> Observe:
    """Return an observation that fine-tunes a variant on one fold."""
    variant = make_variant(*words)

    def observe(params: Params, world: World) -> object:
        job = FinetuneJob(
            cohort=world.cohort,
            fold=world.folds[0],
            params=params,
            variant=variant,
            pretrained=world.pretrained,
        )
        return trained((finetune_fold if variant.is_neural else fit_non_neural_fold)(job, SilentRecorder()))

    return observe


def planning(mode: str) -> Observe:
    """Return an observation of which folds of an optuna variant are trained first, and by how many processes."""

    def observe(params: Params, world: World) -> object:
        project = Project(root=world.folder, params=params)
        origin = Origin(
            dataset=params.dataset,
            cohort_hash="",
            folds_hash="",
            variables=world.cohort.variable_names,
            stays=90,
            events=30,
            seed=params.seed,
        )
        data = DividedCohort(world.cohort, world.folds, origin)
        weights = {fold.number: world.pretrained for fold in world.folds}
        made_from = MadeFrom.at(origin, stage="pretrain", imputer="csai", settings={})
        output = TrainingOutput(made_from=made_from, run_id="run", folds=())
        imputer = PretrainedImputer(name="csai", project=project, data=data, output=output, weights=weights)
        seen: list[object] = []

        def run(pool: LocalPool, tasks: Iterator[Any]) -> None:
            started = takewhile(lambda task: task is not None, tasks)
            seen.append(([task.job.fold.number for task in started], pool.at_once))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LocalPool, "run", run)
            patch.setattr(variant_training, "read_divided_cohort", lambda project: data)
            patch.setattr(PretrainedImputer, "read", lambda *_: imputer)
            patch.setattr(VariantWork, "start", lambda *_: None)
            request = FinetuneRequest(variants=[make_variant("mlp2", mode, "", "optuna")])
            variant_training.train_variants(project, request, say=lambda _: None, one_run=False)
        return seen

    return observe


def engine(params: Params, world: World) -> object:
    """Return the engine that trains, or why Ray cannot: it is not installed, or no cluster is where it should be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        try:
            with chosen_engine(params) as chosen:
                return type(chosen).__name__
        except UserError as error:
            return str(error)


def drawn_folds(params: Params, world: World) -> object:
    """Draw the folds."""
    joined = replace(world.cohort, source={**world.cohort.source, COHORTS: [["first", 60], ["second", 30]]})
    folds = divide(joined, params.folds, params.seed)
    return [(fold.validation.tolist(), fold.test.tolist()) for fold in folds]


def place(params: Params, folder: Path) -> SimpleNamespace:
    """Return what an extraction is told of where it writes, and of params.yaml."""
    return SimpleNamespace(out=folder, params=lambda: params, folder=lambda dataset: folder, data=lambda: folder)


def generated(params: Params, world: World) -> object:
    """Generate the synthetic cohort."""
    cohort = synthetic.extract(place(params, world.folder))
    return cohort.stay_ids_N.tolist(), np.asarray(cohort.values_NTD).tobytes()


def extracted_stays(params: Params, world: World) -> object:
    """Extract MIMIC-III's stays from the small tables."""
    raw = world.folder / "mimic3"
    if not raw.exists():
        write(raw, tables())
    return extraction.extract_mimic3(raw, params.mimic3, world.folder, 1).source_ids_N.tolist()


def memory_limit(params: Params, world: World) -> object:
    """Return the memory that DuckDB is allowed."""
    raw = world.folder / "mimic3"
    if not raw.exists():
        write(raw, tables())

    class ConnectedError(Exception):
        """Ends the extraction where it would begin."""

    def connect(path: Path, config: Mapping[str, Any]) -> None:
        raise ConnectedError(config["memory_limit"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction.duckdb, "connect", connect)
        with pytest.raises(ConnectedError) as caught:
            extraction.extract_mimic3(raw, params.mimic3, world.folder, 1)
    return str(caught.value)


def network(name: str) -> Observe:
    """Return an observation of one of PyPOTS's networks: the shapes of its weights, and its attention heads."""

    def observe(params: Params, world: World) -> object:
        data = fit_and_split(world.cohort, world.folds[0], params.scaling.clip_quantile)
        module = new_imputer(name, data, params).module
        shapes = {key: tuple(weight.shape) for key, weight in module.state_dict().items()}
        heads = [
            getattr(each, name) for each in module.modules() for name in ("num_heads", "n_heads") if hasattr(each, name)
        ]
        return shapes, heads

    return observe


def rival(name: RivalName) -> Observe:
    """Return an observation that trains a rival on one fold."""

    def observe(params: Params, world: World) -> object:
        job = RivalJob(cohort=world.cohort, fold=world.folds[0], params=params, rival=Rival(name=name, input="raw"))
        return trained(train_rival_fold(job, SilentRecorder()))

    return observe


def rival_network(name: RivalName) -> Observe:
    """Return an observation of one of PyPOTS's networks as a rival: a logit of invented records in training."""

    def observe(params: Params, world: World) -> object:
        module = new_rival(world.cohort.values_NTD.shape, params, Rival(name=name, input="raw")).train()
        values = torch.linspace(-1, 1, 4 * 6 * 4).reshape(4, 6, 4)
        torch.manual_seed(0)
        logits, _ = module(values, (values > -0.7).float())
        return logits.tolist()

    return observe


def rivals_of_params(params: Params, world: World) -> object:
    """Return the rivals that params.yaml names."""
    return [each.label for each in listed_rivals(params.rivals)]


def assessment(params: Params, world: World) -> assess.AssessedFold:
    """Assess the training mean on one fold."""
    mean = pretrain_fold(
        PretrainJob(cohort=world.cohort, fold=world.folds[0], params=params, imputer="mean"), SilentRecorder()
    )
    job = assess.AssessJob(
        cohort=world.cohort,
        fold=world.folds[0],
        params=params,
        imputer="mean",
        pretrained={name: torch.from_numpy(array) for name, array in mean.weights.items()},
        group_N=np.zeros(90, dtype=int),
        example_NTD=world.cohort.values_NTD[:1].copy(),
    )
    return assess.assess_fold(job, SilentRecorder())


def held_out(params: Params, world: World) -> object:
    """Return the scores on held-out cells."""
    return [(scores.pattern, scores.rate, scores.cells, scores.mae) for scores in assessment(params, world).scores]


def ranked(params: Params, world: World) -> object:
    """Return the errors by which imputers are ranked."""
    summary = summarise_imputer(
        imputer="mean",
        ranking=params.assess.ranking,
        assessment=Assessment.of([assessment(params, world)]),
        pretraining=[],
        run_id="",
    )
    return summary.mae_by_fold


def gates(params: Params, world: World) -> object:
    """Put a candidate a little below the champion to the gates."""
    candidate = {"test_auc": 0.72, "test_calibration_error": 0.055}
    champion = {"test_auc": 0.725, "test_calibration_error": 0.05}
    return [gate.passed for gate in score_gates(candidate, champion, params.promote)]


def risks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return outcomes of 90 stays and risks that follow them a little."""
    outcome_N = (np.arange(90) % 3 == 0).astype(int)
    return outcome_N, np.random.default_rng(seed).random(90) * 0.7 + 0.3 * outcome_N


def interval_of_the_difference(params: Params, world: World) -> object:
    """Compare two models by bootstrap."""
    outcome_N, candidate_N = risks(1)
    folds = [TestStays(outcome_N=outcome_N, candidate_N=candidate_N, champion_N=risks(seed)[1]) for seed in (2, 3, 4)]
    return paired_difference(folds, 1, resamples=params.promote.resamples, seed=params.seed).interval


def interval_on_a_cohort(params: Params, world: World) -> object:
    """Score a cohort by bootstrap."""
    outcome_N, risk_N = risks(1)
    static = pd.DataFrame({each.name: np.full(90, np.nan) for each in (AGE, GENDER, ICU_TYPE)})
    resamples, seed = params.evaluate.resamples, params.seed
    [every] = score_cohort(outcome_N, risk_N, static, threshold=0.5, resamples=resamples, seed=seed)
    return every.scores["auc"]


def high_risk_threshold(params: Params, world: World) -> object:
    """Find the threshold from risks of validation stays."""
    _, risk_N = risks(1)
    predictions = pd.DataFrame({"stay_id": world.cohort.stay_ids_N, "split": "validation", "risk": risk_N})
    return find_threshold([replace(world.csai, predictions=predictions)], world.cohort, params.threshold)


def device(params: Params, world: World) -> object:
    """Return the device, or why there is none."""
    try:
        return choose_device(params.device).type
    except UserError as error:
        return str(error)


def all_imputers(params: Params, world: World) -> object:
    """Return what --imputer all means."""
    return imputer_names("all", params)


def members(params: Params, world: World) -> object:
    """Return the members of the blend."""
    return [variant.label for variant in blend_members(params.blend)]


def blended(params: Params, world: World) -> object:
    """Blend two members' invented risks of the first fold."""
    fold = world.folds[0]
    stays = np.concatenate([fold.validation, fold.test])
    splits = ["validation"] * len(fold.validation) + ["test"] * len(fold.test)
    outcome_N = world.cohort.outcome_N[stays]
    draws = [np.random.default_rng(seed).random(len(stays)) for seed in (1, 2)]
    risks = [0.3 * outcome_N + 0.5 * draws[0], 0.1 * outcome_N + 0.8 * draws[1]]
    tables = [
        pd.DataFrame({"stay_id": world.cohort.stay_ids_N[stays], "split": splits, "risk": risk_N}) for risk_N in risks
    ]
    job = BlendJob(cohort=world.cohort, fold=0, params=params, predictions=dict(zip("ab", tables, strict=True)))
    return blend_fold(job, SilentRecorder()).predictions["risk"].tolist()


def variants(params: Params, world: World) -> object:
    """Return the variants of the grid."""
    return [variant.label for variant in grid_variants(params.grid, params.imputers)]


def cohort_folder(params: Params, world: World) -> object:
    """Return the folder that commands read."""
    return Project(root=world.folder, params=params).cohort_folder


def heads_folder(params: Params, world: World) -> object:
    """Return the folder of the heads that commands train, of a cohort that is not there yet."""
    outcome = chosen_outcome(world.folder / "data/none", params.outcome)
    return Project(root=world.folder, params=params, outcome=outcome).heads_folder("csai")


frozen, unfrozen, cyclic, optuna = (
    finetuning("mlp2", *words) for words in ((), ("unfrozen",), ("frozen", "", "cyclic"), ("frozen", "", "optuna"))
)
with_record = finetuning("mlp2", "frozen", "hidden+summary")
xgboost, svm = (finetuning(head, "", "summary") for head in ("xgboost", "svm"))
SHORT = {f"budget.{dataset}.frozen_epochs": 3 for dataset in ("synthetic", "physionet2012", "mimic3")}
PLATEAUS = {"schedules.plateau.patience": 1, "schedules.plateau.learning_rate": 0.1}
SEFT, MTAN, IPNETS, RAINDROP, STRATS = (rival(name) for name in ("seft", "mtan", "ipnets", "raindrop", "strats"))
SAITS, CSDI, GPVAE = (network(name) for name in ("saits", "csdi", "gpvae"))

OF_PYPOTS = ("pypots.", *(f"rivals.{name}." for name in PYPOTS))
"""What the names of keys start with that only networks of PyPOTS read."""
EFFECTS: dict[str, Effect] = {
    "dataset": Effect("physionet2012", cohort_folder),
    "outcome": Effect("los_over_7_days", heads_folder),
    "seed": Effect(7, drawn_folds),
    "workers": Effect(1, planning("frozen")),
    "engine": Effect("ray", engine),
    "device": Effect("cpu" if torch.cuda.is_available() else "cuda", device, {"device": "auto"}),
    "synthetic.stays": Effect(31, generated),
    "synthetic.seed": Effect(7, generated),
    "mimic3.minimum_age": Effect(60, extracted_stays),
    "mimic3.minimum_hours": Effect(60, extracted_stays),
    "mimic3.transfers": Effect("leave_out", extracted_stays),
    "mimic3.memory_gib": Effect(0.5, memory_limit),
    "folds.protocol": Effect("single_split", drawn_folds),
    "folds.count": Effect(4, drawn_folds),
    **{
        f"folds.single_split.fractions.{name}": Effect(0.5, drawn_folds, refused=True)
        for name in ("train", "validation", "test")
    },
    "folds.single_split.seeds": Effect([7], drawn_folds, {"folds.protocol": "single_split"}),
    "folds.external.validation": Effect(0.5, drawn_folds, {"folds.protocol": "external"}),
    "folds.external.seeds": Effect([7], drawn_folds, {"folds.protocol": "external"}),
    "scaling.clip_quantile": Effect(0.1, pretraining),
    "masking.pattern": Effect("uniform", pretraining),
    "masking.rate": Effect(0.3, pretraining),
    "masking.factor": Effect(0.9, pretraining),
    "csai.hidden_size": Effect(6, pretraining),
    "csai.channels": Effect(4, pretraining),
    "csai.attention_heads": Effect(4, pretraining),
    "csai.feedforward": Effect(6, pretraining),
    "pypots.saits.n_layers": Effect(2, SAITS),
    "pypots.saits.n_heads": Effect(1, SAITS),
    "pypots.saits.d_k": Effect(2, SAITS),
    "pypots.saits.d_v": Effect(2, SAITS),
    "pypots.saits.d_ffn": Effect(4, SAITS),
    "pypots.csdi.n_layers": Effect(2, CSDI),
    "pypots.csdi.n_heads": Effect(4, CSDI),
    "pypots.csdi.n_channels": Effect(16, CSDI),
    "pypots.csdi.d_time_embedding": Effect(4, CSDI),
    "pypots.csdi.d_feature_embedding": Effect(2, CSDI),
    "pypots.csdi.d_diffusion_embedding": Effect(4, CSDI),
    "pypots.gpvae.latent_size": Effect(3, GPVAE),
    "pypots.gpvae.encoder_sizes": Effect([8, 8], GPVAE),
    "pypots.gpvae.decoder_sizes": Effect([4], GPVAE),
    "pypots.gpvae.window_size": Effect(3, GPVAE),
    "pretrain.batch_size": Effect(8, pretraining),
    "pretrain.learning_rate": Effect(0.001, pretraining),
    "pretrain.imputation_weight": Effect(2.0, pretraining),
    "pretrain.history_weight": Effect(1.0, pretraining),
    "pretrain.consistency_weight": Effect(1.0, pretraining),
    "pretrain.missingness_weight": Effect(0.5, pretraining),
    "pretrain.variable_masking": Effect(0.3, pretraining),
    "pretrain.gradient_norm": Effect(0.01, pretraining),
    "heads.mlp_width": Effect(4, frozen, SHORT),
    "finetune.batch_size": Effect(8, frozen, SHORT),
    "finetune.patience": Effect(1, frozen),
    "finetune.masking_rate": Effect(0.5, unfrozen, SHORT),
    "finetune.variable_masking": Effect(0.3, unfrozen, SHORT),
    "finetune.dropout": Effect(0.6, frozen, SHORT),
    "finetune.weight_decay": Effect(0.1, frozen, SHORT),
    "finetune.reconstruction_weight": Effect(0.1, unfrozen, SHORT),
    "finetune.unfrozen_rate_factor": Effect(0.1, unfrozen, SHORT),
    "finetune.average_decay": Effect(0.5, frozen, SHORT),
    "finetune.unfrozen_average_decay": Effect(0.5, unfrozen, SHORT),
    "finetune.gradient_norm": Effect(0.01, frozen, SHORT),
    "schedules.plateau.learning_rate": Effect(0.01, frozen, SHORT),
    "schedules.plateau.factor": Effect(0.5, frozen, PLATEAUS),
    "schedules.plateau.patience": Effect(3, frozen, PLATEAUS),
    "schedules.plateau.min_learning_rate": Effect(0.09, frozen, PLATEAUS),
    "schedules.cyclic.lowest_rate": Effect(0.0005, cyclic, SHORT),
    "schedules.cyclic.highest_rate": Effect(0.002, cyclic, SHORT),
    "schedules.cyclic.half_cycle_epochs": Effect(1, cyclic, SHORT),
    "schedules.cyclic.gamma": Effect(0.5, cyclic, SHORT),
    "schedules.optuna.trials": Effect(2, optuna, SHORT),
    "schedules.optuna.startup_trials": Effect(3, optuna, SHORT | {"schedules.optuna.trials": 5}),
    "schedules.optuna.lowest_rate": Effect(0.0001, optuna, SHORT),
    "schedules.optuna.highest_rate": Effect(0.01, optuna, SHORT),
    "schedules.optuna.reduction_factor": Effect(2, optuna, SHORT | {"schedules.optuna.trials": 5}),
    "schedules.optuna.trial_epochs": Effect(1, optuna, SHORT),
    "schedules.optuna.frozen_scope": Effect("first_fold", planning("frozen")),
    "schedules.optuna.unfrozen_scope": Effect("each_fold", planning("unfrozen")),
    "record_heads.dropout": Effect(0.0, with_record),
    "record_heads.input_dropout": Effect(0.0, with_record),
    "record_heads.weight_decay": Effect(0.5, with_record),
    "non_neural.xgboost.trees": Effect(1, xgboost),
    "non_neural.xgboost.patience": Effect(1, xgboost),
    "non_neural.xgboost.learning_rate": Effect(0.3, xgboost),
    "non_neural.xgboost.max_depth": Effect(1, xgboost),
    "non_neural.xgboost.stay_fraction": Effect(0.4, xgboost),
    "non_neural.xgboost.feature_fraction": Effect(0.9, xgboost),
    "non_neural.xgboost.min_child_weight": Effect(0.1, xgboost),
    "non_neural.xgboost.l2": Effect(20.0, xgboost),
    "non_neural.xgboost.seeds": Effect(2, xgboost),
    "non_neural.svm.costs": Effect([0.0001], svm),
    "blend.members": Effect(["csai/mlp2-frozen-hidden-plateau", "csai/gru-frozen-raw-cyclic"], members),
    "blend.scale": Effect("ranks", blended),
    "blend.weights": Effect("cross_fitted", blended),
    "rivals.raw": Effect(["mtan"], rivals_of_params),
    "rivals.raw_static": Effect(["mtan"], rivals_of_params),
    "rivals.epochs": Effect(2, SEFT),
    "rivals.patience": Effect(1, SEFT, {"rivals.rates": [1e-9, 1e-8], "rivals.epochs": 4}),
    "rivals.rates": Effect([0.002], SEFT),
    "rivals.rate_epochs": Effect(2, SEFT),
    "rivals.seft.width": Effect(4, SEFT),
    "rivals.seft.layers": Effect(1, SEFT),
    "rivals.seft.heads": Effect(1, SEFT),
    "rivals.seft.time_channels": Effect(8, SEFT),
    "rivals.seft.dropout": Effect(0.5, SEFT),
    "rivals.mtan.hidden_size": Effect(4, MTAN),
    "rivals.mtan.heads": Effect(2, MTAN),
    "rivals.mtan.time_channels": Effect(8, MTAN),
    "rivals.mtan.reference_points": Effect(3, MTAN),
    "rivals.ipnets.hidden_size": Effect(4, IPNETS),
    "rivals.ipnets.dropout": Effect(0.5, IPNETS),
    "rivals.ipnets.reconstruction_weight": Effect(0.1, IPNETS),
    "rivals.raindrop.channels": Effect(2, RAINDROP),
    "rivals.raindrop.time_channels": Effect(8, RAINDROP),
    "rivals.raindrop.attention": Effect(2, RAINDROP),
    "rivals.strats.width": Effect(4, STRATS),
    "rivals.strats.layers": Effect(2, STRATS),
    "rivals.strats.heads": Effect(4, STRATS),
    "rivals.strats.feedforward": Effect(4, STRATS),
    "rivals.strats.dropout": Effect(0.5, STRATS),
    "rivals.brits.rnn_hidden_size": Effect(4, rival_network("brits")),
    "rivals.grud.rnn_hidden_size": Effect(4, rival_network("grud")),
    "rivals.patchtst.patch_size": Effect(2, rival_network("patchtst")),
    "rivals.patchtst.patch_stride": Effect(1, rival_network("patchtst")),
    "rivals.tefn.n_fod": Effect(3, rival_network("tefn")),
    "rivals.tefn.dropout": Effect(0.5, rival_network("tefn")),
    "imputers": Effect(["csai", "csai_untrained", "mean", "locf", "linear"], all_imputers),
    "assess.patterns": Effect(["hours"], held_out),
    "assess.rates": Effect([0.5], held_out),
    "assess.ranking.pattern": Effect("blocks", ranked),
    "assess.ranking.rate": Effect(0.3, ranked),
    "assess.block_hours": Effect(2, held_out),
    "assess.block_variables": Effect(1, held_out),
    "threshold.rule": Effect("sensitivity", high_risk_threshold),
    "threshold.sensitivity": Effect(0.3, high_risk_threshold, {"threshold.rule": "sensitivity"}),
    "promote.minimum_auc": Effect(0.73, gates),
    "promote.auc_margin": Effect(0.001, gates),
    "promote.calibration_margin": Effect(0.001, gates),
    "promote.resamples": Effect(40, interval_of_the_difference),
    "evaluate.resamples": Effect(40, interval_on_a_cohort),
}
for dataset in CONTENT["budget"]:
    here = {"dataset": dataset}
    EFFECTS[f"budget.{dataset}.pretrain_epochs"] = Effect(1, pretraining, here)
    EFFECTS[f"budget.{dataset}.frozen_epochs"] = Effect(2, frozen, here | SHORT)
    EFFECTS[f"budget.{dataset}.unfrozen_epochs"] = Effect(1, unfrozen, here | SHORT)
for name in ATTENTIVE:
    network_of_rival = rival_network(name)
    changed = {"n_layers": 2, "n_heads": 1, "d_k": 2, "d_v": 2, "d_ffn": 4, "dropout": 0.5, "attn_dropout": 0.5}
    EFFECTS |= {f"rivals.{name}.{size}": Effect(value, network_of_rival) for size, value in changed.items()}
for block, words in CONTENT["grid"].items():
    for name in words:
        EFFECTS[f"grid.{block}.{name}"] = Effect([], variants)  # an empty list takes none


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """90 stays of 6 hours and 4 variables, the first variable high where the outcome is 1; CSAI on the first fold."""
    random = np.random.default_rng(1)
    outcome_N = (np.arange(90) % 3 == 0).astype(np.int8)
    values_NTD = (random.normal(10, 2, (90, 1, 4)) + random.normal(0, 0.3, (90, 6, 4))).astype(np.float32)
    values_NTD[:, :, 0] += 2 * outcome_N[:, None]
    values_NTD[random.random(values_NTD.shape) < np.array([0.1, 0.3, 0.5, 0.7])] = np.nan
    cohort = Cohort(
        dataset="synthetic",
        stay_ids_N=np.arange(500, 590),
        outcome_N=outcome_N,
        values_NTD=values_NTD,
        variables=tuple(Variable(name, "unit") for name in ("HR", "Temp", "pH", "K")),
        static=pd.DataFrame(index=range(90)),
        source={"exclusions": {}},
    )
    folds = draw_folds(cohort, 3, seed=3)
    csai = pretrain_fold(PretrainJob(cohort=cohort, fold=folds[0], params=params_with({})), SilentRecorder())
    return World(cohort, folds, csai, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def seen() -> dict[object, object]:
    """What was observed with the unchanged values, so that one observation serves many keys."""
    return {}


def test_every_key_has_an_entry() -> None:
    """A key that is added to params.yaml needs an effect that is tested, and no entry is left of a removed one."""
    assert len(KEYS) > 100
    assert set(EFFECTS) == set(KEYS)


@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=needs_pypots) if key.startswith(OF_PYPOTS) else key for key in sorted(EFFECTS)]
)
def test_changing_a_key_changes_what_it_decides(key: str, world: World, seen: dict[object, object]) -> None:
    """With one key changed, weights, scores, stays, variants or a verdict differ; or the change is refused."""
    effect = EFFECTS[key]
    usual = (effect.observe, str(effect.given))
    if usual not in seen:
        seen[usual] = effect.observe(params_with(effect.given), world)
    changes = {**effect.given, key: effect.value}
    if effect.refused:
        with pytest.raises(ValidationError, match=key.split(".")[-1]):
            params_with(changes)
    else:
        assert effect.observe(params_with(changes), world) != seen[usual]


def test_the_same_values_give_the_same_observation(world: World) -> None:
    """No observation changes by itself, so that a change seen above comes from the key."""
    installed = {key: effect for key, effect in EFFECTS.items() if find_spec("pypots") or not key.startswith(OF_PYPOTS)}
    for effect in {effect.observe: effect for effect in installed.values()}.values():
        params = params_with(effect.given)
        assert effect.observe(params, world) == effect.observe(params, world)
