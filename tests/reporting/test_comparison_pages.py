import pytest

from example_results import HEADS, imputer_comparison, matrix_row, noisy_rows, ranked_imputer, variant_row
from imputune.evaluation.comparison import VariantComparison
from imputune.evaluation.rows import ImputerRow
from imputune.protocol.division import Division
from imputune.protocol.published import AVERAGE, SCHEDULES
from imputune.reporting.comparison import (
    alone_tables,
    imputer_answers,
    imputer_tables,
    imputer_title,
    matrix_tables,
    variant_latex,
    variant_markdown,
    variant_tables,
    variant_title,
)

COLUMNS = tuple(f"{schedule} {split}" for schedule in (*SCHEDULES, AVERAGE) for split in ("val", "test"))


def variants(*names: str, dataset: str = "synthetic") -> VariantComparison:
    """Return a comparison of variants, two folds each, with the same AUCs, and of one imputer."""
    imputer = ImputerRow(
        imputer="csai",
        pattern="uniform",
        split="test",
        mae_mean=0.3,
        mae_std=0.141,
        mre_mean=0.5,
        mre_std=0.0,
        mae_by_variable={},
        mre_by_variable={},
    )
    return VariantComparison(
        dataset=dataset,
        stays=3997,
        events=554,
        cohort_hash="abc",
        division=Division(count=5),
        rows=tuple(variant_row(name, [0.84, 0.86], dataset) for name in names),
        imputers=(imputer,),
        notes=("one variant is unfinished", "another is missing"),
    )


def test_titles_have_the_size_of_the_dataset() -> None:
    """Thousands have a comma."""
    assert variant_title(variants("svm-frozen-hidden-none")) == "synthetic: 3,997 stays, 554 deaths"
    assert imputer_title(imputer_comparison()) == "Imputer or classifier? set-a: 1,100 stays, 154 deaths"


def test_only_tables_with_something_to_show() -> None:
    """One frozen variant under one schedule has no averages, no claim to test, no unfrozen table."""
    assert [table.title for table in variant_tables(variants("mlp2-frozen-hidden-plateau"))] == [
        "Table II: frozen imputer, AUC by schedule",
        "Every variant of the protocol: in-hospital death",
        "Training time",
        "Imputation of masked cells, in training standard deviations",
    ]


def test_all_tables_in_their_order() -> None:
    """Both modes under all schedules and a non-neural head, on the paper's dataset."""
    names = [
        f"mlp2-{mode}-hidden-{schedule}"
        for mode in ("frozen", "unfrozen")
        for schedule in ("optuna", "cyclic", "plateau")
    ]
    tables = variant_tables(variants(*names, "svm-frozen-hidden-none", dataset="physionet2012"))
    assert [table.title for table in tables] == [
        "Averaged over the three schedules",
        "Table II: frozen imputer, AUC by schedule",
        "Table III: unfrozen imputer, AUC by schedule",
        "Non-neural heads",
        "The paper's claims",
        "Every variant of the protocol: in-hospital death",
        "Training time",
        "Other protocols",
        "Imputation of masked cells, in training standard deviations",
    ]


def test_markdown_by_value() -> None:
    """The page begins with title, protocol and first table, and ends with the last table and the notes."""
    page = variant_markdown(variants("mlp2-frozen-hidden-plateau"))
    assert page.splitlines()[:9] == [
        "# synthetic: 3,997 stays, 554 deaths",
        "",
        "Protocol: cross-validation, 5 folds. Each of 5 folds tests on one subset of the stays, validates on the next "
        "and trains on the others. Every stay is a test stay once.",
        "",
        "## Table II: frozen imputer, AUC by schedule",
        "",
        f"| model |  | {' | '.join(COLUMNS)} |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| mlp2, hidden | ours |  |  |  |  | 0.860 ± 0.014 | 0.850 ± 0.014 |  |  |",
    ]
    assert page.endswith(
        "## Imputation of masked cells, in training standard deviations\n\n"
        "| imputer | masking pattern | test MAE | test MRE |\n"
        "| --- | --- | --- | --- |\n"
        "| CSAI | at random | 0.300 ± 0.141 | 0.500 ± 0.000 |\n\n"
        "Note: one variant is unfinished.\n\n"
        "Note: another is missing.\n"
    )


def test_markdown_has_every_table() -> None:
    """Each table has its title as a heading, its header and its lines."""
    comparison = variants("mlp2-frozen-hidden-plateau", "svm-frozen-hidden-none", dataset="physionet2012")
    lines = variant_markdown(comparison).splitlines()
    for table in variant_tables(comparison):
        header = lines.index("| " + " | ".join(table.header) + " |")
        assert lines[header - 2] == f"## {table.title}"
        assert lines[header + 1].count("---") == len(table.header)
        assert lines[header + 2 : header + 2 + len(table.lines)] == [f"| {' | '.join(line)} |" for line in table.lines]


def test_latex_by_value() -> None:
    """A comment names the package needed; each table is an environment of its own, in the order of the page."""
    text = variant_latex(variants("mlp2-frozen-hidden-plateau"))
    assert text.splitlines()[:4] == [
        r"% synthetic: 3,997 stays, 554 deaths; needs \usepackage{booktabs}",
        r"\begin{table}[htbp]",
        r"\centering",
        r"\caption{Table II: frozen imputer, AUC by schedule. Protocol: cross-validation, 5 folds.}",
    ]
    assert r"mlp2, hidden & ours &  &  &  &  & 0.860 $\pm$ 0.014 & 0.850 $\pm$ 0.014 &  &  \\" in text
    assert r"CSAI & at random & 0.300 $\pm$ 0.141 & 0.500 $\pm$ 0.000 \\" in text
    assert text.count(r"\begin{table}") == text.count(r"\toprule") == text.count(r"\end{table}") == 4


def test_answers_are_what_matters_and_the_lowest_error() -> None:
    """Without a second imputer there is no sentence on errors; without a matrix the answer is still missing."""
    imputers = [ranked_imputer("csai", 0.24, 0.26), ranked_imputer("mean", 0.7, 0.72)]
    both = imputer_answers(imputer_comparison(noisy_rows(lambda i, c, f: 0.7 + 0.1 * c), imputers))
    assert [sentence.split(".")[0] for sentence in both] == [
        "On set-a the classifier matters most",
        "With 10% of the observed cells masked (non-uniform), CSAI has the lowest error (MAE 0",
    ]
    [missing] = imputer_answers(imputer_comparison(imputers=imputers[:1]))
    assert missing.startswith("There is no answer yet")


def test_tables_of_imputers_and_heads_in_their_order() -> None:
    """First the matrix, then the imputers alone."""
    comparison = imputer_comparison(
        noisy_rows(lambda i, c, f: 0.7 + 0.1 * c),
        [ranked_imputer("csai", 0.24, 0.26), ranked_imputer("mean", 0.7, 0.72)],
    )
    assert [table.title for table in imputer_tables(comparison)] == [
        "Imputer × classifier: test AUC",
        "What explains the variance",
        "CSAI against each other imputer",
        "Imputers, the lowest error first",
        "Imputation error by masking pattern and rate",
        "Imputation error by how much of a stay is missing",
    ]
    assert imputer_tables(comparison) == [*matrix_tables(comparison), *alone_tables(comparison)]


@pytest.mark.parametrize(
    ("matrix", "titles"),
    [([], []), ([matrix_row("csai", head, [0.7, 0.8]) for head in HEADS], ["Imputer × classifier: test AUC"])],
)
def test_a_matrix_of_one_imputer_has_no_comparison(matrix, titles) -> None:
    """Nothing fine-tuned gives no table; one imputer gives the matrix alone; nothing assessed gives no errors."""
    assert [table.title for table in imputer_tables(imputer_comparison(matrix))] == titles
