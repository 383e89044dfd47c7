"""Fuzzed files and folders: params.yaml, cohorts, bundles, and MIMIC-III's tables; see `fuzz_tables`."""

import csv
import io
import json
import shutil
from random import Random
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from benchmarks import fuzz_mimic3 as mimic3
from benchmarks.fuzz_bench import Bench, attempt
from benchmarks.fuzz_inputs import (
    JUNK,
    NAMES,
    FuzzError,
    broken,
    damaged,
    from_csv,
)
from benchmarks.fuzz_server import small_about
from imputune.data.cohort import read_cohort, write_cohort
from imputune.data.raw.synthetic import extract_synthetic
from imputune.registry.bundle_file import read_bundle
from imputune.settings.file import read_params


def fuzz_params(random: Random, bench: Bench) -> str:
    """params.yaml with other words, keys and bytes; what is kept must be what a plain YAML reader reads."""
    lines = bench.params.read_text().splitlines(keepends=True)
    at = random.choice([n for n, line in enumerate(lines) if ":" in line and not line.lstrip().startswith("#")])
    key, _, value = lines[at].partition(":")
    match random.randrange(6):
        case 0 | 1:
            lines[at] = (
                f"{key}: {random.choice((*JUNK, '[]', '{}', '[1', '-5', '1e9', '0.5', 'yes', '!!python/x', '*a'))}\n"
            )
        case 2:
            lines[at] = f"{key}{random.choice('sx_ -')}:{value}"
        case 3:
            lines.insert(random.randrange(len(lines)), lines[at])
        case 4:
            lines[at] = random.choice((" ", "  ", "\t")) + lines[at]
        case _:
            del lines[at]
    content = "".join(lines).encode()
    if random.random() < 0.3:
        content = damaged(random, content)
    path = bench.case / "params.yaml"
    path.write_bytes(content)
    params = attempt(lambda: read_params(path))
    if isinstance(params, str):
        return "refused"
    plain = YAML(typ="safe", pure=True).load(content.decode())
    _check_leaves(plain, params.model_dump(mode="json"), "params.yaml")
    return "kept"


def _check_leaves(plain: Any, read: Any, place: str) -> None:
    if isinstance(plain, dict):
        for key, value in plain.items():
            if not isinstance(read, dict) or str(key) not in read:
                raise FuzzError(f"{place}.{key} was left out without a word")
            _check_leaves(value, read[str(key)], f"{place}.{key}")
    elif isinstance(plain, list):
        if len(plain) != len(read):
            raise FuzzError(f"{place} has {len(read)} of {len(plain)} entries")
        for number_, (one, other) in enumerate(zip(plain, read, strict=True)):
            _check_leaves(one, other, f"{place}.{number_}")
    elif read not in (plain, float(plain) if isinstance(plain, int) else plain) or isinstance(
        plain, bool
    ) != isinstance(read, bool):
        raise FuzzError(f"{place} = {plain!r} was read as {read!r}")


def fuzz_cohorts(random: Random, bench: Bench) -> str:
    """The folder of a cohort with a damaged file; what is kept must be what csv, json and numpy read."""
    template, folder = bench.templates / "cohort", bench.case / "cohort"
    if not template.exists():
        write_cohort(extract_synthetic(4, 1), template)
    shutil.copytree(template, folder)
    path = folder / random.choice(("source.json", "stays.csv", "stays.csv", "values.npy", "variables.csv"))
    content = path.read_bytes()
    if path.suffix == ".csv" and random.random() < 0.8:
        table = list(csv.reader(io.StringIO(content.decode())))
        path.write_bytes(broken(random, table[0], table[1:]))
    elif random.random() < 0.1:
        path.unlink()
    else:
        path.write_bytes(damaged(random, content))
    cohort = attempt(lambda: read_cohort(folder))
    if isinstance(cohort, str):
        return "refused"
    stays = from_csv((folder / "stays.csv").read_bytes())
    if not stays or any(len(row) != len(stays[0]) for row in stays):
        raise FuzzError("kept a stays.csv with rows of several lengths")
    columns: dict[str, list[str]] = {name.strip(): [row[n] for row in stays[1:]] for n, name in enumerate(stays[0])}
    static = {str(name): cohort.static[name].to_numpy() for name in cohort.static}
    known: dict[str, Any] = {"stay_id": cohort.stay_ids_N, "died": cohort.outcome_N, **static}
    for name, read in known.items():
        if len(read) != len(columns[name]):
            raise FuzzError(f"{name} has {len(read)} of {len(columns[name])} rows")
        for text, value in zip(columns[name], read, strict=True):
            if (text.strip() and float(text) != value) or (not text.strip() and not np.isnan(value)):
                raise FuzzError(f"{name} {text!r} in stays.csv was read as {value!r}")
    named = from_csv((folder / "variables.csv").read_bytes()) or []
    places = [named[0].index(name) for name in ("name", "unit")]
    if [tuple(row[place] for place in places) for row in named[1:]] != [(v.name, v.unit) for v in cohort.variables]:
        raise FuzzError("variables.csv was read as other names or units")
    if not np.array_equal(cohort.values_NTD, np.load(folder / "values.npy"), equal_nan=True):
        raise FuzzError("values.npy was read as other values")
    return "kept"


def fuzz_bundles(random: Random, bench: Bench) -> str:
    """The folder of a bundle with a damaged file: refused, with the checksum of bundle.json or without it."""
    folder = bench.case / "bundle"
    shutil.copytree(bench.models / "bundle", folder)
    path = random.choice(sorted(folder.iterdir()))
    before = path.read_bytes()
    if path.suffix == ".json" and random.random() < 0.7:
        told = json.loads(before)
        place = random.choice((told, told["about"], told["about"]["sizes"], told["about"]["variables"][0]))
        place[random.choice([*place, "more"])] = random.choice((None, 0, -1, 2.5, "x", [], {}, True, 10**30, [0, 0]))
        path.write_text(json.dumps(told))
    elif random.random() < 0.1:
        path.unlink()
    else:
        path.write_bytes(damaged(random, before))
    bundle = attempt(lambda: read_bundle(folder, bench.checksum if random.random() < 0.5 else ""))
    if isinstance(bundle, str):
        return "refused"
    told = json.loads((folder / "bundle.json").read_text())
    if path.suffix != ".json" and path.read_bytes() != before:
        raise FuzzError(f"kept {path.name} with another checksum")
    if json.loads(bundle.about.model_dump_json()) != told["about"]:
        raise FuzzError("bundle.json was read as something else")
    if bundle.about.sizes != small_about().sizes or bundle.about.variables[0].name not in (*NAMES, "x"):
        raise FuzzError("kept a bundle of other sizes")
    return "kept"


def fuzz_mimic3(random: Random, bench: Bench) -> str:
    """MIMIC-III's ten tables, one of them saved again or damaged; heart rates and counts must be those of the text."""
    folder = bench.case / "tables"
    folder.mkdir()
    is_harmless = mimic3.write_tables(random, folder)
    cohort = attempt(lambda: mimic3.extract(folder, bench.case / "data"))
    if isinstance(cohort, str):
        if is_harmless and "none of the" not in cohort:
            raise FuzzError(f"refused a harmless change: {cohort}")
        return "refused"
    return mimic3.check(cohort, folder)
