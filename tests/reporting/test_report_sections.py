import base64
from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from example_results import (
    assessed_imputer,
    held_out_scores_of,
    imputer_comparison,
    noisy_rows,
    ranked_imputer,
    variant_row,
)
from imputune.data.cohort import Variable
from imputune.data.window import HOURS
from imputune.reporting import reproduction
from imputune.reporting.page import Report, Section
from imputune.reporting.report_inputs import HeadFindings, ImputerFindings, ReportInputs
from imputune.reporting.report_sections import build_report
from imputune.settings.names import ImputerName

SOURCE = {
    "imputune.python": "3.11.2",
    "imputune.torch": "2.13.0",
    "imputune.numpy": "2.4.6",
    "imputune.git_dirty": "false",
    "mlflow.source.git.commit": "0123abcd",
}
MATRIX = noisy_rows(lambda i, c, f: 0.7 + 0.1 * c)
IMPUTERS = [
    ranked_imputer("csai", 0.24, 0.25, 0.26),
    ranked_imputer("mean", 0.7, 0.71, 0.72),
    ranked_imputer("saits", 0.3, 0.31, 0.32),
]
PROTOCOL = [
    variant_row("mlp2-frozen-hidden-plateau", [0.70, 0.71]),
    variant_row("mlp2-unfrozen-hidden-plateau", [0.80, 0.81001]),
]
OUTCOME_N, RISK_N = np.tile([0, 1], 10), np.linspace(0.1, 0.9, 20)


def findings(name: ImputerName, epochs_kept: tuple[int, ...] = (), heads: bool = True) -> ImputerFindings:
    """Return what is known of an imputer of the matrix: its curves, its two heads, its generated stay."""
    return ImputerFindings(
        curves=[[0.6, 0.5], [0.4]] if epochs_kept else [],
        epochs_kept=epochs_kept,
        epochs=40 if epochs_kept else 0,
        heads={
            row.head: HeadFindings(
                row=row, curves=[[0.7, 0.8]] if row.head == "mlp2" else [], risks=(OUTCOME_N, RISK_N)
            )
            for row in MATRIX
            if row.imputer == name and heads
        },
        example_FTD=np.zeros((2, HOURS, 2)),
    )


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    """Inputs with something for every section."""
    masked_T = np.zeros(HOURS, dtype=bool)
    masked_T[10:20] = True
    return ReportInputs(
        comparison=imputer_comparison(MATRIX, IMPUTERS, PROTOCOL, ["brits is skipped: pretrain it again"]),
        variables=(Variable("HR", "/min"), Variable("pH", "1")),
        seed=2012,
        cohort_hash="c" * 64,
        folds_hash="f" * 64,
        extract_command="imputune extract set-a --records raw",
        source=SOURCE,
        findings={"csai": findings("csai", (38, 36)), "mean": findings("mean"), "saits": findings("saits", (40,))},
        example_TD=np.ones((HOURS, 2)),
        masked_T=masked_T,
    )


@pytest.fixture(scope="module")
def report(inputs: ReportInputs) -> Report:
    """The report of these inputs."""
    return build_report(inputs)


def section(report: Report, title: str) -> Section:
    """Return the section of a report with this title."""
    [found] = [each for each in report.sections if each.title == title]
    return found


def figure_texts(found: Section) -> list[tuple[str, str]]:
    """Return the file name and the caption of each figure."""
    return [(each.name, each.caption) for each in found.figures]


def test_title_answers_and_sections_in_their_order(report) -> None:
    """The answers stand before the sections."""
    assert report.title == "Imputer or classifier? set-a: 1,100 stays, 154 deaths"
    assert [answer.split(",")[0].split(".")[0] for answer in report.answers] == [
        "On set-a the classifier matters most",
        "With 10% of the observed cells masked (non-uniform)",
    ]
    assert [each.title for each in report.sections] == [
        "What was run",
        "Imputers alone",
        "How imputers fill a generated stay",
        "Imputer and classifier",
        "Risks that the classifiers give",
        "Training",
        "The paper's claims",
        "By variable",
        "How to reproduce it",
    ]


def test_what_was_run_by_value(report) -> None:
    """The cohort, the folds and the classifiers in words, and each imputer with the epochs that its folds kept."""
    found = section(report, "What was run")
    assert found.paragraphs == (
        "1,100 ICU stays of set-a: the first 48 hours of 2 variables in hourly bins. 154 patients died in hospital. "
        "Protocol: cross-validation, 5 folds. Each of 5 folds tests on one subset of the stays, validates on the next "
        "and trains on the others. Every stay is a test stay once. Each imputer and each classifier was trained on the "
        "training stays of a fold. Its epoch was chosen on the validation stays. It was scored once, on the test "
        "stays.",
        "Each imputer was trained first and then kept unchanged (frozen). Each classifier learned to predict "
        "in-hospital death from what the imputer gives: its hidden state, the imputed series, or both. Classifiers: "
        "mlp2, xgboost.",
    )
    [table] = found.tables
    assert table.header == ("imputer", "its name in commands", "what it is, or its source", "epoch kept")
    assert table.lines == (
        ("CSAI", "csai", "arXiv 2312.16713", "36 to 38 of 40"),
        ("mean", "mean", "the training mean", "learns nothing"),
        ("SAITS", "saits", "Du et al. 2023", "40 to 40 of 40"),
    )


def test_imputers_alone_by_value(report) -> None:
    """The tables and figures of errors by masking and by missing share."""
    found = section(report, "Imputers alone")
    assert found.paragraphs == (
        "Observed cells of the test stays were masked and imputed. The estimates were compared with the observed "
        "values. This was done with several masking patterns and rates. Every imputer was scored on the same cells.",
    )
    assert [table.title for table in found.tables] == [
        "Imputers, the lowest error first",
        "Imputation error by masking pattern and rate",
        "Imputation error by how much of a stay is missing",
    ]
    assert figure_texts(found) == [
        ("errors", "Error of each imputer by masking rate"),
        ("missing", "Error of each imputer by the share of a stay that was never observed"),
    ]


def test_the_example_shows_csai_and_the_best_of_the_others(report) -> None:
    """CSAI, then of PyPOTS's networks and of the plain rules the one with the lowest error."""
    found = section(report, "How imputers fill a generated stay")
    assert found.paragraphs == (
        "This report contains no patient's record: the stay was generated. The hours with a grey background were "
        "masked. Lines show the mean over the folds, bands the range.",
    )
    caption = "A generated stay as imputed by CSAI, SAITS, mean, with the range over the folds"
    assert figure_texts(found) == [("example", caption)]


def test_the_matrix_repeats_the_answer(report) -> None:
    """The answer stands over the tables and the heat map."""
    found = section(report, "Imputer and classifier")
    assert found.paragraphs == report.answers[:1]
    assert [table.title for table in found.tables] == [
        "Imputer × classifier: test AUC",
        "What explains the variance",
        "CSAI against each other imputer",
    ]
    assert figure_texts(found) == [("matrix", "Test AUC of each imputer with each classifier, as a heat map")]
    assert [label.get_text() for label in found.figures[0].figure.axes[0].get_yticklabels()] == [
        "CSAI",
        "mean",
        "SAITS",
    ]


def test_risks_of_the_first_imputers_classifiers(report) -> None:
    """Every classifier on CSAI has its scores and a curve."""
    found = section(report, "Risks that the classifiers give")
    [table] = found.tables
    assert (table.title, table.header) == (
        "Classifiers on CSAI",
        ("classifier", "AUC", "AUPRC", "Brier score", "calibration error", "calibration slope"),
    )
    rest = ("0.500 ± 0.000", "0.100 ± 0.000", "0.030 ± 0.000", "0.900 ± 0.000")
    assert [(line[0], line[2:]) for line in table.lines] == [("mlp2", rest), ("xgboost", rest)]
    aucs = MATRIX[0].by_fold("test_auc")
    assert table.lines[0][1] == f"{np.mean(list(aucs.values())):.3f} ± {np.std(list(aucs.values()), ddof=1):.3f}"
    assert table.remark == (
        "Mean ± sample standard deviation over the test folds. A calibration slope below 1 says that risks are too "
        "extreme, above 1 too moderate. In the figure of precision and recall, the dotted line is the share that died."
    )
    caption = "ROC, precision-recall and calibration curves of the classifiers on CSAI, test stays of all folds"
    assert figure_texts(found) == [("risks", caption)]


def test_training_curves_of_imputers_and_heads(report) -> None:
    """Only imputers and heads that were trained by epochs have curves."""
    found = section(report, "Training")
    assert found.paragraphs == (
        "Curves are means over the folds that still train. A fold stops when its validation score no longer improves.",
    )
    assert figure_texts(found) == [
        ("imputer-training", "Validation error of the imputers by epoch"),
        ("head-training", "Validation AUC of the classifiers on CSAI by epoch"),
    ]
    imputers, heads = (each.figure.axes[0] for each in found.figures)
    assert [line.get_label() for line in imputers.lines] == ["CSAI", "SAITS"]
    assert list(imputers.lines[0].get_ydata()) == [0.5, 0.5]
    assert [(line.get_label(), list(line.get_ydata())) for line in heads.lines] == [("mlp2", [0.7, 0.8])]


def test_figures_of_an_earlier_report_stay_where_artifacts_are_missing(inputs) -> None:
    """Without curves, risks and examples, the earlier figures stand in the report, which says so."""
    bare = {
        name: replace(
            each,
            curves=[],
            example_FTD=None,
            heads={head: HeadFindings(row=found.row) for head, found in each.heads.items()},
        )
        for name, each in inputs.findings.items()
    }
    names = ("example", "risks", "imputer-training", "head-training")
    earlier = {name: name.encode() for name in (*names, "errors")}
    figures = {each.name: each for each in build_report(replace(inputs, findings=bare, earlier=earlier)).figures()}
    for name in names:
        assert figures[name].png == name.encode()
        assert figures[name].caption.endswith("(drawn for an earlier report)")
        assert figures[name].source == f"data:image/png;base64,{base64.b64encode(name.encode()).decode()}"
    assert figures["errors"].png != b"errors"
    drawn = {each.name for each in build_report(replace(inputs, earlier=earlier)).figures()}
    assert drawn == set(figures)
    assert not {each.name for each in build_report(replace(inputs, findings=bare)).figures()} & set(names)


def test_claims_and_errors_by_variable_are_tables(report) -> None:
    """The claims come from the variants of the paper's protocol."""
    [claims] = section(report, "The paper's claims").tables
    assert [line[0] for line in claims.lines] == ["unfrozen beats frozen"]
    [variables] = section(report, "By variable").tables
    assert variables.lines == (("HR", "0.250", "0.710", "0.310"),)


def test_how_to_reproduce_it_by_value(inputs, monkeypatch) -> None:
    """Code, libraries, data, seed, notes; imputers with the same heads share a command."""
    monkeypatch.setattr(reproduction, "version", lambda package: "1.5")
    found = section(build_report(inputs), "How to reproduce it")
    assert found.paragraphs == (
        "Code: imputune at commit 0123abcd; python 3.11.2, torch 2.13.0, numpy 2.4.6, pypots 1.5. "
        "Data: cccccccccccccccc, folds: ffffffffffffffff (the first characters of their sha256). Seed: 2012.",
        "Note: brits is skipped: pretrain it again.",
    )
    assert found.commands == (
        "pip install -e '.[pypots]'",
        "imputune extract set-a --records raw",
        "imputune folds set-a",
        "imputune pretrain set-a --imputer csai,mean,saits",
        "imputune grid set-a --imputer csai,mean,saits --head mlp2,xgboost",
        "imputune assess set-a --imputer csai,mean,saits",
        "imputune compare set-a --by imputer,head",
    )


def test_an_imputer_with_fewer_heads_has_a_command_of_its_own(inputs) -> None:
    """One without any has none; without PyPOTS the project's own set-up is enough."""
    csai = findings("csai", (38,))
    fewer = replace(csai, heads={"mlp2": csai.heads["mlp2"]})
    others = {"csai": csai, "mean": fewer, "locf": findings("locf", heads=False)}
    report = build_report(replace(inputs, findings=others, comparison=imputer_comparison(MATRIX)))
    commands = section(report, "How to reproduce it").commands
    assert commands[0] == "make setup"
    assert [command for command in commands if " grid " in command] == [
        "imputune grid set-a --imputer csai --head mlp2,xgboost",
        "imputune grid set-a --imputer mean --head mlp2",
    ]


def test_code_that_was_changed_or_is_unknown_is_named_so(inputs, monkeypatch) -> None:
    """A dirty working tree, no commit, and a PyPOTS that is not installed."""

    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(reproduction, "version", missing)
    source = {name: value for name, value in SOURCE.items() if name != "mlflow.source.git.commit"}
    changed = replace(inputs, source=source | {"imputune.git_dirty": "true"})
    paragraph = section(build_report(changed), "How to reproduce it").paragraphs[0]
    assert paragraph.startswith(
        "Code: imputune at commit unknown with uncommitted changes; python 3.11.2, torch 2.13.0, numpy 2.4.6, "
        "pypots, which was not installed where this report was written. Data: "
    )


def test_sections_without_content_are_left_out(inputs) -> None:
    """An imputer that was pretrained and nothing else."""
    bare = replace(
        inputs,
        comparison=imputer_comparison(),
        findings={"mean": replace(findings("mean", heads=False), example_FTD=None)},
        example_TD=None,
    )
    report = build_report(bare)
    assert [each.title for each in report.sections] == ["What was run", "How to reproduce it"]
    assert report.sections[0].paragraphs[1].endswith(" Classifiers: none yet.")
    [answer] = report.answers
    assert answer.startswith("There is no answer yet")


def test_a_dataset_without_the_examples_variables_says_so(inputs) -> None:
    """If fewer than two variables of the generated stay are observed, a sentence stands in place of the figure."""
    found = section(
        build_report(replace(inputs, example_TD=np.full((HOURS, 2), np.nan))), "How imputers fill a generated stay"
    )
    assert found.figures == ()
    assert found.paragraphs == (
        "The generated stays have too few of this dataset's variables, so there is none to show.",
    )


def test_without_csai_the_first_imputers_are_drawn(inputs) -> None:
    """Controls alone stand in the example, and the caption of the curves names the shuffled validation stays."""
    controls = {name: findings("csai", (38,)) for name in ("csai_untrained", "csai_shuffled")}
    imputers = [ranked_imputer(name, 0.7, 0.7) for name in controls]
    report = build_report(replace(inputs, findings=controls, comparison=imputer_comparison(MATRIX, imputers)))
    [(_, caption)] = figure_texts(section(report, "How imputers fill a generated stay"))
    assert caption.startswith("A generated stay as imputed by untrained CSAI, CSAI on shuffled stays, with")
    assert figure_texts(section(report, "Training"))[0] == (
        "imputer-training",
        "Validation error of the imputers by epoch; the control on shuffled stays was validated on shuffled stays too",
    )


def test_examples_are_chosen_by_their_first_scores_without_the_rankings(inputs) -> None:
    """If the ranking's masking was not assessed, the first masking decides: of LOCF and the mean, LOCF."""
    imputers = [
        assessed_imputer(name, [[held_out_scores_of(mae, "uniform", 0.3)]])
        for name, mae in (("mean", 0.7), ("locf", 0.4))
    ]
    both = {"mean": findings("mean"), "locf": findings("locf")}
    report = build_report(replace(inputs, findings=both, comparison=imputer_comparison((), imputers)))
    [(_, caption)] = figure_texts(section(report, "How imputers fill a generated stay"))
    assert caption == "A generated stay as imputed by LOCF, with the range over the folds"
    assert [name for name, _ in figure_texts(section(report, "Imputers alone"))] == ["errors"]
    assert "By variable" not in [each.title for each in report.sections]


def test_the_first_imputer_with_heads_is_shown(inputs) -> None:
    """The one without heads is passed over; without any, the first is shown."""
    without, with_heads = findings("mean", heads=False), findings("csai")
    assert replace(inputs, findings={"mean": without, "csai": with_heads}).shown == "csai"
    assert replace(inputs, findings={"mean": without, "locf": without}).shown == "mean"


def test_markdown_and_page_hold_every_section(report) -> None:
    """Both are written from the same sections."""
    markdown, page = report.to_markdown("report"), report.to_html()
    for each in report.sections:
        assert f"## {each.title}\n" in markdown
        assert f'<section id="{each.anchor}">' in page
    names = ["errors", "missing", "example", "matrix", "risks", "imputer-training", "head-training"]
    assert [each.name for each in report.figures()] == names
    assert all(f"](report/{name}.png)" in markdown for name in names)
