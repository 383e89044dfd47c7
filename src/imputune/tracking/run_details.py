"""What people see of a run in the MLflow UI: its name, description, columns and cohorts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imputune.tracking.cohort_input import CohortInput

NOTE_CONTENT = "mlflow.note.content"  # MLflow's tag of a run's description
UNFINISHED = "The result will be written here when the run has finished."


def ended_early(status: str, result: str = "") -> str:
    """Return what a description says of a run that ended as KILLED or FAILED; `result`: what it had said before."""
    return f"{result}\n\nIt ended as {status}." if result else f"It ended as {status}, without a result."


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """What people see of a run, beside its parameters and metrics.

    name: "" for the command's. doing and repeat: Markdown, the description's beginning (what is run) and its end (how
    to run it again); the result comes between. columns: parameters by which people filter and group runs; the runs of
    folds and trials have them too. cohorts: the Dataset column. parent: the id of another run of this process in which
    this run is nested, "" for none.
    """

    name: str = ""
    doing: str = ""
    repeat: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    cohorts: Sequence[CohortInput] = ()
    parent: str = ""

    def note_tag(self, result: str) -> dict[str, str]:
        """Return the tag of the description with a result; no tag if `doing` is empty."""
        text = "\n\n".join(part for part in (self.doing, result, self.repeat) if part)
        return {NOTE_CONTENT: text} if self.doing else {}


NO_DETAILS = RunDetails()
