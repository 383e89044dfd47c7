"""The link that opens compared runs side by side in the MLflow UI, told at the end of a command."""

import os

from imputune.errors import UserError
from imputune.pipeline.project import Project
from imputune.runtime.console import say
from imputune.tracking.comparison_view import UI_ADDRESS, ComparisonView, ViewKind, share_view


def say_link(project: Project, kind: ViewKind) -> None:
    """Store the view of a dataset's fine-tuned runs, and say the link that opens it.

    Nothing is said where nothing may be written, or no run is found. A store that fails is a note, and no error: the
    command has done its work.
    """
    if not os.access(project.root, os.W_OK | os.X_OK):
        return
    try:
        view = ComparisonView(
            dataset=project.dataset,
            kind=kind,
            outcome="".join(project.outcome_words),
            protocol=project.division.tags.get("protocol", ""),
        )
        link = share_view(project.root, view)
    except UserError as error:
        say(f"note: no link to the runs in the MLflow UI: {error}")
        return
    if link:
        where = " (`make ui` first)" if link.startswith(UI_ADDRESS) else ""
        say(f"runs side by side in the MLflow UI{where}: {link}")
