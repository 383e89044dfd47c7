from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import fuzz, fuzz_tables
from imputune.errors import UserError

pytestmark = pytest.mark.slow

CASES = 300


@pytest.fixture(scope="module")
def bench() -> Iterator[fuzz.Bench]:
    """A served model of random weights."""
    with fuzz.opened() as opened:
        yield opened


def test_mutated_inputs_are_kept_refused_or_counted(bench):
    """300 mutated inputs: none crashes, none changes a value without a word; every kind is there."""
    fuzzed = fuzz.fuzz(bench, 2012, range(CASES), list(fuzz.KINDS))
    assert fuzzed.failed == []
    assert sum(kind.cases for kind in fuzzed.kinds) == CASES
    assert all(kind.cases and kind.refused for kind in fuzzed.kinds)
    assert sum(kind.kept for kind in fuzzed.kinds) > 20
    assert sum(kind.counted for kind in fuzzed.kinds) > 20


def test_a_case_can_be_repeated(bench):
    """A seed and a number always give the same case, alone or among others."""
    kinds = ["csv", "records"]
    together = [fuzz.fuzz(bench, 5, [number], kinds).kinds for number in range(4)]
    assert [fuzz.fuzz(bench, 5, [number], kinds).kinds for number in range(4)] == together


@pytest.mark.parametrize("kind", ["records", "csv", "parquet"])
def test_a_changed_value_is_found(bench, kind, monkeypatch):
    """If reading changes one cell, or does not count an ignored row, cases fail."""
    read_raw = fuzz_tables.read_raw

    def changed(*arguments):
        stays = read_raw(*arguments)
        return replace(stays, values_NTD=stays.values_NTD + np.float32(0.5))

    def uncounted(*arguments):
        stays = read_raw(*arguments)
        return replace(stays, ignored={})

    for fault in (changed, uncounted):
        monkeypatch.setattr(fuzz_tables, "read_raw", fault)
        assert fuzz.fuzz(bench, 1, range(6), [kind]).failed


def test_an_unknown_kind_is_one_line(monkeypatch):
    """The error lists the kinds."""
    monkeypatch.setattr("sys.argv", ["fuzz", "--kind", "csv,xlsx"])
    with pytest.raises(UserError, match="unknown kind 'xlsx': choose from records, csv, parquet, requests, mimic3"):
        fuzz.main()
