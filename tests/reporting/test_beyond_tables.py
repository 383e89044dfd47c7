from example_results import variant_row
from imputune.evaluation.ablation import ablations
from imputune.evaluation.comparison import VariantComparison
from imputune.evaluation.rows import VariantRow
from imputune.protocol.division import Division
from imputune.reporting.beyond_tables import ablation_table, beyond_table
from imputune.reporting.comparison import variant_latex, variant_tables

BASE = variant_row("mlp2-frozen-hidden-plateau", [0.80, 0.82])
STATIC = variant_row("mlp2-frozen-hidden+static-plateau", [0.81, 0.85])
TREES = variant_row("xgboost-frozen-summary+static-none", [0.88, 0.90])
MORE = BASE.model_copy(update={"imputer": "csai_more", "val_auc_mean": 0.95})


def comparison(*rows: VariantRow) -> VariantComparison:
    """Return a comparison of some variants."""
    return VariantComparison(
        dataset="physionet2012",
        stays=100,
        events=10,
        cohort_hash="abc",
        division=Division(count=5),
        rows=tuple(row.model_copy() for row in rows),
        imputers=(),
        notes=(),
    )


def test_beyond_the_paper_by_value() -> None:
    """Each line has the variant's words and scores; the best by validation comes first."""
    table = beyond_table(comparison(BASE, STATIC, TREES).beyond_rows)
    assert table.title == "Beyond the paper"
    trees, static = (dict(zip(table.header, line, strict=True)) for line in table.lines)
    assert static == {
        "imputer": "csai",
        "head": "mlp2",
        "mode": "frozen",
        "input": "hidden+static",
        "schedule": "plateau",
        "val AUC": "0.840 ± 0.028",
        "test AUC": "0.830 ± 0.028",
        "test AUPRC": "0.500 ± 0.000",
        "calibration error": "0.030 ± 0.000",
        "params": "14,081",
        "seconds": "60",
    }
    assert (trees["input"], trees["params"], trees["val AUC"]) == ("summary+static", "", "0.900 ± 0.014")
    assert beyond_table([]) is None


def test_the_papers_tables_have_the_papers_variants_alone() -> None:
    """Other inputs and imputers stand in their own table, and have no figure of the paper beside them."""
    summary = variant_row("xgboost-frozen-summary-none", [0.85, 0.86])
    alone = variant_tables(comparison(BASE, summary))
    together = variant_tables(comparison(BASE, STATIC, summary, TREES))
    added = [table for table in together if table not in alone]
    assert [table.title for table in added] == ["Beyond the paper", "What each ingredient adds"]
    assert [table for table in together if table in alone] == alone
    assert (STATIC.paper_test_auc, TREES.paper_test_auc, BASE.paper_test_auc) == (None, None, 0.778)


def test_metrics_name_other_imputers() -> None:
    """The same variant on CSAI and on another imputer has two entries."""
    found = VariantComparison.model_construct(rows=(BASE, MORE), imputers=())
    assert list(found.metrics()) == ["mlp2-frozen-hidden-plateau", "csai_more/mlp2-frozen-hidden-plateau"]


def test_ablation_by_value() -> None:
    """Difference, interval and adjusted p of both scores; without a pair there is no table."""
    table = ablation_table(ablations([BASE, STATIC], 1 / 3))
    [line] = table.lines
    assert line == (
        "static",
        "csai/mlp2-frozen-hidden-plateau",
        "csai/mlp2-frozen-hidden+static-plateau",
        "+0.020 (−0.144 to +0.184)",  # 12.706 (t of 1 degree of freedom) times (5/6 * 0.0002) ** 0.5
        "0.365",
        "+0.000 (+0.000 to +0.000)",
        "1.000",
    )
    assert "Holm" in table.remark
    assert ablation_table([]) is None
    text = variant_latex(comparison(BASE, STATIC))
    assert r"static & csai/mlp2-frozen-hidden-plateau & csai/mlp2-frozen-hidden+static-plateau" in text


def test_json_has_the_pairs() -> None:
    """results.json has each pair with the differences by fold, and the test that was used."""
    content = comparison(BASE, STATIC).as_json()["ablation"]
    assert content["test"].startswith("corrected resampled t-test")
    [pair] = content["pairs"]
    assert [round(each, 6) for each in pair["auc"]["by_fold"]] == [0.01, 0.03]
