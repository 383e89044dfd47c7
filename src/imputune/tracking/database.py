"""A database as the tracking store, without a tracking server before it: whether it can be reached and used."""

import logging
import os

import sqlalchemy
from mlflow import MlflowClient

from imputune.errors import UserError
from imputune.tracking.credentials import without_password
from imputune.tracking.sqlite import sqlite_path
from imputune.tracking.store_failures import failures, server_needed

CONNECT_SECONDS = 5
DEFAULT_EXPERIMENT = "0"
PROXIED = "mlflow-artifacts:"  # artifacts that clients read and write through a tracking server
TIMED = ("psycopg", "psycopg2", "pymysql", "mysqldb")  # drivers that take connect_timeout


def check_database(uri: str) -> None:
    """Connect to a database once, within seconds; do nothing for the address of a server.

    mlflow alone would try for two minutes and print each failure. Raises UserError for a driver that is not installed,
    StoreUnavailableError for a database that does not answer or refuses the user.
    """
    if uri.partition("+")[0].partition(":")[0] not in ("postgresql", "mysql", "mssql"):
        return
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback for each failed try
    try:
        with failures(uri):
            is_timed = sqlalchemy.make_url(uri).get_driver_name() in TIMED
            timeout = {"connect_timeout": CONNECT_SECONDS} if is_timed else {}
            engine = sqlalchemy.create_engine(uri, connect_args=timeout)
            engine.connect().close()
            engine.dispose()
    except ImportError as missing:
        raise UserError(
            f"the tracking store {without_password(uri)} needs a database driver that is not installed "
            f"({missing}): install it, or name the address of a tracking server (http://...) in MLFLOW_TRACKING_URI"
        ) from missing


def check_place(uri: str, experiment: str) -> None:
    """Refuse a database to record to if the artifacts of `experiment` go through a tracking server.

    If the experiment is missing, the default one tells whose database it is, unless it is a file: a file's new
    experiments keep their artifacts beside it. Raises UserError.
    """
    with failures(uri):
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None and sqlite_path(uri) is None:
            found = client.get_experiment(DEFAULT_EXPERIMENT)
    if found is not None:
        check_artifacts(uri, found.artifact_location)


def check_artifacts(uri: str, place: str | None) -> None:
    """Raise UserError if artifacts go to a place that is reached through a tracking server, and the store is none."""
    if not uri.startswith("http") and str(place).startswith(PROXIED):
        raise server_needed(uri)
