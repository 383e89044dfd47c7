"""The section of the report that says how to reproduce it: code, data, notes and commands."""

from importlib.metadata import PackageNotFoundError, version

from imputune.protocol.imputers import EXTRA, PACKAGE, imputer_kind, is_own
from imputune.reporting.page import Section
from imputune.reporting.report_inputs import ReportInputs


def reproduction_section(inputs: ReportInputs) -> Section:
    """Return the versions of code and data, the notes, and the commands that lead to this report."""
    source = inputs.source
    changed = " with uncommitted changes" if source.get("imputune.git_dirty") == "true" else ""
    libraries = [f"{name} {source[f'imputune.{name}']}" for name in ("python", "torch", "numpy")]
    pypots = any(imputer_kind(name).family == "pypots" for name in inputs.findings)
    if pypots:
        libraries.append(_pypots_version())
    code = f"imputune at commit {source.get('mlflow.source.git.commit', 'unknown')}{changed}"
    return Section(
        title="How to reproduce it",
        paragraphs=(
            f"Code: {code}; {', '.join(libraries)}. Data: {inputs.cohort_hash[:16]}, folds: {inputs.folds_hash[:16]} "
            f"(the first characters of their sha256). Seed: {inputs.seed}.",
            *(f"Note: {note}." for note in inputs.comparison.notes),
        ),
        commands=(f"pip install -e '.[{EXTRA}]'" if pypots else "make setup", *_commands(inputs)),
    )


def _commands(inputs: ReportInputs) -> list[str]:
    """Return the commands after set-up; imputers with the same heads share one `imputune grid`."""
    dataset, imputers = inputs.comparison.dataset, ",".join(inputs.findings)
    catalogue = ",".join(name for name in inputs.findings if not is_own(name))
    own = [f"imputune pretrain {dataset} --also FOLDER --name {name}" for name in inputs.findings if is_own(name)]
    by_heads: dict[str, list[str]] = {}
    for name, each in inputs.findings.items():
        if each.heads:
            by_heads.setdefault(",".join(each.heads), []).append(name)
    grids = [f"imputune grid {dataset} --imputer {','.join(names)} --head {heads}" for heads, names in by_heads.items()]
    return [
        inputs.extract_command,
        f"imputune folds {dataset}",
        f"imputune pretrain {dataset} --imputer {catalogue}",
        *own,
        *grids,
        f"imputune assess {dataset} --imputer {imputers}",
        f"imputune compare {dataset} --by imputer,head",
    ]


def _pypots_version() -> str:
    try:
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:
        return f"{PACKAGE}, which was not installed where this report was written"
