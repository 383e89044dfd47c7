"""Commands that train: folds, pretrain, finetune, grid, assess, overfit."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from imputune.cli.app import Dataset, OutcomeOption, app
from imputune.cli.compare import print_report_table
from imputune.cli.options import EngineOption, TrainingOptions, Workers, takes
from imputune.cli.word_lists import fold_numbers, imputer_names, split_words
from imputune.errors import UserError
from imputune.protocol.choice import choose_variants, grid_variants
from imputune.protocol.imputers import DEFAULT_IMPUTER, IMPUTERS, check_installed, imputer_kind
from imputune.protocol.variants import FIELDS, PROTOCOL, SINGLE_HEADS, WORDS, Variant, make_variant
from imputune.runtime.console import counted, print_table, say, show_epochs
from imputune.settings.file import find_root, read_params
from imputune.settings.names import check_own_name
from imputune.settings.schema import Params

if TYPE_CHECKING:
    from imputune.pipeline.project import Project
    from imputune.pipeline.variant_work import VariantResult

Imputers = Annotated[
    str,
    typer.Option(
        help=f"One or more, separated by commas: {', '.join(IMPUTERS)}, or names such as csai_more. "
        "all: those under imputers and also in params.yaml."
    ),
]
ONE_OR_MORE = {field: f"One or more, separated by commas: {', '.join(words)}." for field, words in WORDS.items()}


@app.command("folds")
def folds_command(dataset: Dataset = None) -> None:
    """Divide a cohort into folds, by the protocol under folds in params.yaml."""
    read_params(find_root(Path.cwd()) / "params.yaml")  # before the imports, which take seconds
    from imputune.pipeline.folds import run_folds
    from imputune.pipeline.project import Project

    project = Project.open(find_root(Path.cwd()), dataset, None)
    folds = run_folds(project)
    sizes = ", ".join(f"{len(fold.train)}/{len(fold.validation)}/{len(fold.test)}" for fold in folds)
    protocol = f", {project.division.label}" if project.division.seeds else ""  # of cross-validation the count says it
    typer.echo(f"{counted(len(folds), 'fold')} of {project.dataset}{protocol} (train/validation/test): {sizes}")


@app.command("pretrain")
def pretrain_command(
    dataset: Dataset = None,
    imputer: Imputers = DEFAULT_IMPUTER,
    also: Annotated[
        str, typer.Option(help="Cohort folders, separated by commas: CSAI trains on their stays too. Needs --name.")
    ] = "",
    name: Annotated[str, typer.Option(help="Own name of the imputer that --also makes, such as csai_more.")] = "",
    skip_finished: Annotated[
        bool, typer.Option("--skip-finished", help="Skip imputers pretrained on the same data, folds and settings.")
    ] = False,
    engine: EngineOption = "",
    workers: Workers = None,
) -> None:
    """Pretrain imputers on every fold and score them on held-out cells.

    Trains every fold again, unless --skip-finished is given. After an interruption, finished folds are kept. With
    --also, an imputer with a name of its own is made: CSAI that also trains on further cohorts, without reading their
    outcomes. Under also in params.yaml, it can be named for `dvc repro`.
    """
    params = read_params(find_root(Path.cwd()) / "params.yaml")
    folders = [Path(word) for word in split_words(also)]
    names = _own_name(imputer, folders, name) or imputer_names(imputer or DEFAULT_IMPUTER, params)
    for each in names:
        check_installed(each)
    with TrainingOptions(engine=engine, workers=workers).chosen_engine(params) as chosen:
        from imputune.evaluation.rows import imputer_rows
        from imputune.pipeline.pretrain import run_pretrain
        from imputune.pipeline.project import Project
        from imputune.reporting.imputer_tables import pretraining_table

        project = Project.open(find_root(Path.cwd()), dataset, None).on(chosen)
        for each in names:
            output = run_pretrain(project, show_epochs, each, folders, again=not skip_finished)
            table = pretraining_table(imputer_rows([fold.imputation for fold in output.folds]))
            print_table(
                f"{imputer_kind(each).label} on {project.dataset}, run {output.run_id}", table.header, table.lines
            )


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TrainingOptions):
    """The options of finetune."""

    dataset: Dataset = None
    outcome: OutcomeOption = ""
    head: Annotated[str, typer.Option(help=f"One of: {', '.join(WORDS['head'])}.")] = "mlp2"
    mode: Annotated[str, typer.Option(help="frozen (default), or unfrozen: the imputer is trained too.")] = ""
    input: Annotated[
        str, typer.Option(help=f"What the head reads: {', '.join(WORDS['input'])} (default: the head's first input).")
    ] = ""
    schedule: Annotated[
        str,
        typer.Option(help=f"One of: {', '.join(WORDS['schedule'])} (default: plateau; none for xgboost, svm, blend)."),
    ] = ""
    imputer: Annotated[str, typer.Option(help=f"One of: {', '.join(IMPUTERS)}, or a name such as csai_more.")] = (
        DEFAULT_IMPUTER
    )


@app.command("finetune")
@takes(FinetuneOptions)
def finetune_command(options: FinetuneOptions) -> None:
    """Fine-tune a head on a pretrained imputer, on every fold.

    Trains every fold again. After an interruption, finished folds are kept.
    """
    variant = make_variant(options.head, options.mode, options.input, options.schedule, options.imputer)
    with options.chosen_engine(read_params(find_root(Path.cwd()) / "params.yaml")) as engine:
        from imputune.pipeline.finetune import run_finetune
        from imputune.pipeline.project import Project

        project = Project.open(find_root(Path.cwd()), options.dataset, options.outcome).on(engine)
        _print_folds(project, run_finetune(project, variant, say))


@dataclass(frozen=True, kw_only=True)
class GridOptions(TrainingOptions):
    """The options of grid."""

    dataset: Annotated[
        str, typer.Argument(help="Cohorts in data/, separated by commas (default: dataset in params.yaml).")
    ] = ""
    outcome: OutcomeOption = ""
    head: Annotated[
        str,
        typer.Option(help=f"{ONE_OR_MORE['head']} Default: all but blend; with --imputer, those under grid."),
    ] = ""
    mode: Annotated[str, typer.Option(help=f"{ONE_OR_MORE['mode']} Default: all; with --imputer, frozen.")] = ""
    input: Annotated[
        str, typer.Option(help=f"{ONE_OR_MORE['input']} Default: the paper's; with --imputer, the head's default.")
    ] = ""
    schedule: Annotated[
        str, typer.Option(help=f"{ONE_OR_MORE['schedule']} Default: all; with --imputer, plateau or none.")
    ] = ""
    imputer: Imputers = ""
    fold: Annotated[str, typer.Option(help="Numbers of folds, separated by commas; all if left out.")] = ""
    all_variants: Annotated[bool, typer.Option("--all", help="Every variant of the paper's protocol.")] = False
    again: Annotated[bool, typer.Option("--again", help="Train finished variants again.")] = False
    show: Annotated[bool, typer.Option("--list", help="List the variants and train nothing.")] = False

    @property
    def repeated(self) -> dict[str, str]:
        """The options that choose the same variants and folds again, also under `mlflow run`, which has no --all."""
        words = {name: getattr(self, name) for name in (*FIELDS, "imputer", "fold", "outcome")}
        return words | {"head": ",".join(SINGLE_HEADS)} if self.all_variants else words

    def variants(self, params: Params) -> list[Variant]:
        """Return the variants that are meant; UserError for unknown words, or options that exclude each other."""
        wanted = {name: split_words(getattr(self, name)) for name in FIELDS}
        imputers = imputer_names(self.imputer, params)
        chosen = any(wanted.values()) or bool(imputers)
        if self.all_variants and chosen:
            raise UserError(
                "--all takes every variant: leave out --head, --mode, --input, --schedule and --imputer, or --all"
            )
        if self.all_variants:
            return list(PROTOCOL)
        if chosen:
            return choose_variants(wanted, imputers, params.grid.heads if imputers else SINGLE_HEADS)
        return grid_variants(params.grid, [DEFAULT_IMPUTER])


@app.command("grid")
@takes(GridOptions)
def grid_command(options: GridOptions) -> None:
    """Fine-tune many variants in parallel and skip finished ones.

    Without options: CSAI's variants under grid in params.yaml. The defaults below apply when --head, --mode, --input,
    --schedule or --imputer is given. If the command is killed, run it again: it continues.
    """
    params = read_params(find_root(Path.cwd()) / "params.yaml")
    variants = options.variants(params)
    if options.show:
        if options.fold:
            raise UserError("--list shows variants, not their folds: leave out --fold, or --list")
        typer.echo("\n".join(variant.label for variant in variants))
        return
    with options.chosen_engine(params) as engine:
        from imputune.pipeline.comparison_link import say_link
        from imputune.pipeline.grid import run_grid
        from imputune.pipeline.project import Project

        root, datasets = find_root(Path.cwd()), split_words(options.dataset) or [""]
        for project in [Project.open(root, name, options.outcome).on(engine) for name in datasets]:
            folds = fold_numbers(options.fold)
            results = run_grid(project, variants, say, options=options.repeated, folds=folds, again=options.again)
            header = ("variant", "folds", "validation AUC", "test AUC", "seconds")
            print_table(f"Variants on {_where(project)}", header, [_summary_line(result) for result in results])
            on_csai = all(imputer_kind(variant.imputer).family == "csai" for variant in variants)
            say_link(project, "heads" if on_csai else "imputers")


@app.command("assess")
def assess_command(
    dataset: Dataset = None,
    imputer: Imputers = "all",
    again: Annotated[bool, typer.Option("--again", help="Assess assessed imputers again.")] = False,
    engine: EngineOption = "",
    workers: Workers = None,
) -> None:
    """Score imputers alone on the same held-out cells of every fold's test stays: error, distribution, time."""
    params = read_params(find_root(Path.cwd()) / "params.yaml")
    names = imputer_names(imputer or "all", params)
    with TrainingOptions(engine=engine, workers=workers).chosen_engine(params) as chosen:
        from imputune.evaluation.assessed_imputers import Assessment, summarise_imputer
        from imputune.pipeline.assess import run_assess
        from imputune.pipeline.project import Project
        from imputune.reporting.imputer_tables import errors_table

        project = Project.open(find_root(Path.cwd()), dataset, None).on(chosen)
        outputs = run_assess(project, names, again, say)
    assessed = [
        summarise_imputer(
            imputer=output.made_from.imputer,
            ranking=params.assess.ranking,
            assessment=Assessment.of(output.folds),
            pretraining=[],
            run_id=output.run_id,
        )
        for output in outputs
    ]
    print_report_table(errors_table(assessed))


@dataclass(frozen=True, kw_only=True)
class OverfitOptions(TrainingOptions):
    """The options of overfit."""

    dataset: Dataset = None
    outcome: OutcomeOption = ""
    head: Annotated[str, typer.Option(help="mlp2, mlp5, lstm or gru.")] = "mlp2"
    mode: Annotated[str, typer.Option(help="frozen (default) or unfrozen.")] = ""
    input: Annotated[str, typer.Option(help="What the head reads (default: the head's first input).")] = ""
    schedule: Annotated[str, typer.Option(help="optuna, cyclic or plateau (default).")] = ""
    fold: Annotated[str, typer.Option(help="Numbers of folds, separated by commas; all if left out.")] = ""
    epochs: Annotated[int, typer.Option(help="Number of epochs; all are trained.", min=1)] = 200


@app.command("overfit")
@takes(OverfitOptions)
def overfit_command(options: OverfitOptions) -> None:
    """Train a variant without early stopping, to show when it overfits (the paper's Fig. 4).

    `imputune compare` draws the curves.
    """
    variant = make_variant(options.head, options.mode, options.input, options.schedule)
    with options.chosen_engine(read_params(find_root(Path.cwd()) / "params.yaml")) as engine:
        from imputune.pipeline.overfit import run_overfit
        from imputune.pipeline.project import Project

        project = Project.open(find_root(Path.cwd()), options.dataset, options.outcome).on(engine)
        folds = fold_numbers(options.fold)
        _print_folds(project, run_overfit(project, variant, say, epochs=options.epochs, folds=folds))


def _own_name(imputer: str, folders: list[Path], name: str) -> list[str]:
    """Return the imputer that --also and --name make, if they are given; UserError for one without the other."""
    if not folders and not name:
        return []
    if not folders or not name:
        raise UserError("--also and --name go together: --also names cohort folders, --name the imputer they make")
    if imputer not in ("", DEFAULT_IMPUTER, name):
        raise UserError(f"--also makes an imputer of family csai, named by --name: leave out --imputer {imputer}")
    try:
        return [check_own_name(name)]
    except ValueError as error:
        raise UserError(f"--name: {error}") from None


def _summary_line(result: "VariantResult") -> tuple[str, ...]:
    """Return a variant's label, its finished folds, their mean validation and test AUC, and their seconds as text."""
    folds = result.folds.values()
    validation, test = (fmean(fold.scores[name] for fold in folds) for name in ("validation_auc", "test_auc"))
    seconds = sum(fold.seconds for fold in folds)
    return result.variant.label, str(len(folds)), f"{validation:.3f}", f"{test:.3f}", f"{seconds:,.0f}"


def _where(project: "Project") -> str:
    """Return the dataset in a title, and the outcome if it is not in_hospital_death."""
    return ", ".join((project.dataset, *project.outcome_words))


def _print_folds(project: "Project", result: "VariantResult") -> None:
    lines = [
        (str(number), f"{fold.scores['validation_auc']:.3f}", f"{fold.scores['test_auc']:.3f}", str(fold.best_epoch))
        for number, fold in result.folds.items()
    ]
    title = f"{result.variant.label} on {_where(project)}, run {result.run_id}"
    print_table(title, ("fold", "validation AUC", "test AUC", "best epoch"), lines)
