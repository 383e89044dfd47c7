"""A link into the MLflow UI that opens fine-tuned runs side by side, in charts.

The UI reads a shared view from a tag of the experiment: which runs, which columns, which charts. MLflow does not
document the tag's content. It is what the button Share of the runs page writes (MLflow 3.17).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from mlflow import MlflowClient
from mlflow.entities import Experiment
from pydantic import JsonValue

from imputune.tracking import store
from imputune.tracking.credentials import without_password
from imputune.tracking.fold_runs import FOLD_TAG
from imputune.tracking.runs import COMMAND_TAG, DATASET_TAG, IMPUTER_TAG
from imputune.tracking.store_failures import failures
from imputune.tracking.trials import TRIAL_TAG

VIEW_TAG = "mlflow.sharedViewState."
OWN_VIEWS = "imputune-"
NOTE_TAG = "mlflow.note.content"
OWN_NOTE = "Runs of imputune. Fine-tuned runs side by side, in charts:"
UI_ADDRESS = "http://127.0.0.1:5000"  # of `make ui`
CSAI_ALONE = f"tags.`{IMPUTER_TAG}` LIKE 'csai%'"
OUTCOME_TAG, PROTOCOL_TAG = "imputune.outcome", "imputune.protocol"
VALIDATION_AUC, TEST_AUC = "validation/auc", "test/auc"
ViewKind = Literal["heads", "imputers"]
"""Heads on CSAI and its relatives, or heads on every imputer."""
COLUMNS = {"heads": ("head", "mode", "input", "schedule"), "imputers": ("imputer", "head", "input")}
CHARTS, OTHERS = "AUC", ("test", "validation", "Model metrics", "System metrics")


@dataclass(frozen=True, kw_only=True)
class ComparisonView:
    """The fine-tuned runs of a dataset, without the runs of folds and trials nested in them.

    outcome: "" for in_hospital_death, whose runs have no tag of it. protocol: "" for cross-validation, the same.
    """

    dataset: str
    kind: ViewKind
    outcome: str = ""
    protocol: str = ""

    @property
    def name(self) -> str:
        """The view's name in the tag and the link, the same for every comparison of the dataset."""
        protocol = re.sub(r"\W+", "-", self.protocol)
        return OWN_VIEWS + "-".join(word for word in (self.dataset, self.outcome, protocol, self.kind) if word)

    @property
    def condition(self) -> str:
        """The search that finds the runs."""
        wanted = {COMMAND_TAG: "finetune", DATASET_TAG: self.dataset}
        conditions = [f"tags.`{tag}` = '{text}'" for tag, text in wanted.items()]
        conditions += [f"tags.`{tag}` IS NULL" for tag in (FOLD_TAG, TRIAL_TAG)]
        for tag, text in ((OUTCOME_TAG, self.outcome), (PROTOCOL_TAG, self.protocol)):
            conditions.append(f"tags.`{tag}` = '{text}'" if text else f"tags.`{tag}` IS NULL")
        return " and ".join([*conditions, CSAI_ALONE] if self.kind == "heads" else conditions)

    def state(self) -> dict[str, JsonValue]:
        """Return what the UI reads: search, order, columns, and the charts in their sections."""
        params = COLUMNS[self.kind]
        sections = {name: f"imputune-{number}" for number, name in enumerate((CHARTS, *OTHERS))}
        place = sections[CHARTS]
        charts = [
            _chart(place, "BAR", metricKey=VALIDATION_AUC),
            _chart(place, "BAR", metricKey=TEST_AUC),
            _chart(place, "SCATTER", xaxis=_axis(VALIDATION_AUC), yaxis=_axis(TEST_AUC)),
            _chart(
                place,
                "PARALLEL",
                selectedParams=list(params),
                selectedMetrics=[VALIDATION_AUC, TEST_AUC],
                displayName="what each run was, and its AUC",
            ),
        ]
        return {
            "searchFilter": f"{self.condition} and attributes.status = 'FINISHED'",
            "orderByKey": f"metrics.`{VALIDATION_AUC}`",
            "orderByAsc": False,
            "selectedColumns": [
                "attributes.`Dataset`",
                *(f"params.`{name}`" for name in params),
                *(f"metrics.`{name}`" for name in (VALIDATION_AUC, TEST_AUC)),
            ],
            "runsHiddenMode": "SHOW_ALL",
            "isAccordionReordered": True,
            "compareRunSections": [
                {"uuid": uuid, "name": name, "display": name == CHARTS, "isReordered": False, "columns": 2}
                for name, uuid in sections.items()
            ],
            "compareRunCharts": [{**chart, "uuid": f"{place}-{number}"} for number, chart in enumerate(charts)],
        }


def share_view(root: Path, view: ComparisonView) -> str:
    """Store a view in the experiment of its newest run, and return the link that opens it.

    "" where no run is found. Raises UserError when the store fails or may not be written.
    """
    uri = store.open_store(root)
    client = MlflowClient(uri)
    with failures(uri):
        experiments = [each.experiment_id for each in _experiments(client)]
        newest = client.search_runs(experiments, view.condition, max_results=1, order_by=["attributes.start_time DESC"])
        if not newest:
            return ""
        experiment_id = newest[0].info.experiment_id
        client.set_experiment_tag(experiment_id, VIEW_TAG + view.name, json.dumps(view.state()))
        _describe(client, experiment_id)
    return view_link(uri, experiment_id, view.name)


def stored_links(root: Path, address: str = UI_ADDRESS) -> list[str]:
    """Return the links of all views stored so far, for a UI at an address; none if there is no store."""
    if not store.has_store(root):
        return []
    uri = store.open_existing_store(root)
    with failures(uri):
        return [
            view_link(uri, each.experiment_id, tag.removeprefix(VIEW_TAG), address)
            for each in _experiments(MlflowClient(uri))
            for tag in sorted(each.tags)
            if tag.startswith(VIEW_TAG + OWN_VIEWS)
        ]


def view_link(uri: str, experiment_id: str, name: str, address: str = UI_ADDRESS) -> str:
    """Return the link of a view: on the server that the store is, or on a UI of this machine at `address`."""
    base = without_password(uri).rstrip("/") if uri.startswith("http") else address
    query = urlencode({"viewStateShareKey": name, "compareRunsMode": "CHART"})
    return f"{base}/#/experiments/{experiment_id}/runs?{query}"


def _describe(client: MlflowClient, experiment_id: str) -> None:
    """Put links to all views of an experiment into its description, unless a user wrote one."""
    tags = client.get_experiment(experiment_id).tags
    if not tags.get(NOTE_TAG, OWN_NOTE).startswith(OWN_NOTE):
        return
    names = [tag.removeprefix(VIEW_TAG) for tag in sorted(tags) if tag.startswith(VIEW_TAG + OWN_VIEWS)]
    links = [f"- [{name}]({view_link('', experiment_id, name, address='')[1:]})" for name in names]
    client.set_experiment_tag(experiment_id, NOTE_TAG, "\n".join([OWN_NOTE, "", *links]))


def _experiments(client: MlflowClient) -> Sequence[Experiment]:
    return list(store.all_pages(lambda token: client.search_experiments(page_token=token)))


def _chart(section: str, kind: str, **content: JsonValue) -> dict[str, JsonValue]:
    common: Mapping[str, JsonValue] = {
        "type": kind,
        "metricSectionId": section,
        "runsCountToCompare": 100,
        "deleted": False,
        "isGenerated": False,
    }
    return {**common, **content}


def _axis(metric: str) -> dict[str, JsonValue]:
    return {"key": metric, "type": "METRIC"}
