"""A database as the tracking store, without a tracking server before it: whether it can be reached."""

import logging
import os

import sqlalchemy

from imputune.errors import UserError
from imputune.tracking.credentials import without_password
from imputune.tracking.store_failures import failures

CONNECT_SECONDS = 5
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
