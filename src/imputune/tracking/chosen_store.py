"""Another store for a few calls in a process that goes on, such as a notebook."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow

from imputune.errors import UserError
from imputune.runtime.environment import environment

TRACKING_URI = "MLFLOW_TRACKING_URI"


@contextmanager
def chosen_store(uri: str | None) -> Iterator[None]:
    """Use the store `uri` inside the block, and afterwards the one that the process used before.

    None: the store that MLFLOW_TRACKING_URI or the project names; afterwards only this variable is as it was. Raises
    UserError for an empty `uri`.
    """
    if uri is not None and not uri.strip():
        raise UserError("tracking_uri is empty: name a store, such as http://127.0.0.1:5000, or leave it out")
    if uri is None:
        with environment({TRACKING_URI: os.environ.get(TRACKING_URI)}):
            yield
        return
    with environment({TRACKING_URI: None}):  # so that mlflow tells what set_tracking_uri was given, if anything
        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        os.environ[TRACKING_URI] = uri
        try:
            yield
        finally:
            mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: as if it had never been called
