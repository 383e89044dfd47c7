"""The part of a model card on how to call the version: by imputune, as a server, in Python."""

import json
import shlex

from imputune.artifacts.model_card import ModelCard
from imputune.protocol.outcomes import DEFAULT_OUTCOME

COLUMNS = ["RecordID", "Time", "Parameter", "Value"]
VALUES = {
    **{"HR": 112, "GCS": 14, "Lactate": 4.1},  # of the challenge
    **{"heart_rate": 112, "gcs_motor": 6, "lactate": 4.1},  # of MIMIC-III
}
"""Example values of variables; a card shows those that the version knows."""
FACTS = {"Age": 63, "Gender": 1}
TIMES = ("00:10", "07:30", "13:40")
ANSWER = {
    "risk": "risk of {outcome}, 0 to 1",
    "risk_deviation": "standard deviation of the fold models' risks",
    "high_risk": "whether the risk reaches the threshold",
    "observed_cells": "{often} cells with a value, of {bins} {bin}s × {variables} variables",
    "rows_ignored": "rows that were read but do not count, such as those after hour {hours}",
}
IMPUTED = {
    "Hour, Parameter, Value": "a row for each {bin} of each variable, in the variable's unit{begins}",
    "Observed": "true if the value was measured, false if it was filled in",
    "RowsIgnored": "rows of the stay that were read but do not count, such as those after hour {hours}",
}


def calls_part(card: ModelCard, *, whole: bool) -> str:
    """Return how to get the version's answers.

    whole: with a request by curl, several rows, what the columns of the answer mean, and why there is no signature.
    """
    uri, alias = f"models:/{card.model}/{card.version}", f"models:/{card.model}@champion"
    commands = ["export MLFLOW_TRACKING_URI=sqlite:///$PWD/mlflow.db  # or your server"]
    if card.head:
        chosen = "" if card.outcome == DEFAULT_OUTCOME else f" --outcome {card.outcome}"
        commands.append(f"imputune predict {card.dataset}{chosen} --model {card.version} --records stay.csv")
    commands.append(f"mlflow models serve -m {uri} --env-manager local --port 5001")
    if whole:
        request = json.dumps({"dataframe_split": {"columns": COLUMNS, "data": _rows(card)}})
        commands.append(
            "curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d " + shlex.quote(request)
        )
    shell = "\n".join(f"$ {command}" for command in commands)
    rows = ",\n        ".join(map(json.dumps, _rows(card) if whole else _rows(card)[-1:]))
    python = (
        f'import mlflow, pandas\nmodel = mlflow.pyfunc.load_model("{uri}")\nrows = [{rows}]\n'
        f"answer = model.predict(pandas.DataFrame(rows, columns={json.dumps(COLUMNS)}))"
    )
    parts = [f"```console\n{shell}\n```", f"```python\n{python}\n```"]
    parts.append("stay.csv has the same columns." + (f" `{alias}` is the champion." if card.head else ""))
    return "\n\n".join(parts + (_explained(card) if whole else []))


def _rows(card: ModelCard) -> list[list[object]]:
    """Return the rows of an example: static facts that the version reads at 00:00, then measured values."""
    facts = [fact.parameter for fact in card.static if fact.parameter in FACTS]
    names = [variable.name for variable in card.variables]
    known = [name for name in VALUES if name in names] or names[: len(TIMES)]
    measured = [[1, time, name, VALUES.get(name, 80)] for time, name in zip(TIMES, known, strict=False)]
    return [*([1, "00:00", fact, FACTS[fact]] for fact in facts), *measured]


def _explained(card: ModelCard) -> list[str]:
    """Return what the columns of a table and of the answer mean."""
    static = " Static facts are rows at 00:00, or columns of their own such as Age." if card.static else ""
    words = {
        "variables": len(card.variables),
        "outcome": card.words.label,
        "hours": card.window.hours,
        "bins": card.window.bins,
        "bin": card.window.bin_noun,
        "often": card.window.often,
        "begins": "" if card.window.bin_hours == 1 else f"; a bin of {card.window.bin_hours} hours begins at Hour",
    }
    answer = "\n".join(
        f"- {name}: {meaning.format(**words)}" for name, meaning in (ANSWER if card.head else IMPUTED).items()
    )
    return [
        f"The model checks its table itself: columns {', '.join(COLUMNS)}.{static} So its MLflow signature has no "
        "inputs, on purpose: with them, MLflow would convert cells without a word.",
        f"The answer has a RecordID and:\n\n{answer}",
    ]
