"""The address of a tracking store: whether it can be one, before mlflow takes it for a folder."""

import os

from imputune.errors import UserError
from imputune.tracking.credentials import without_password

FOLDERS_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"
WITHOUT_SLASHES = ("databricks", "databricks-uc", "uc")


def check_address(uri: str) -> None:
    """Raise UserError for an address without a scheme, as 127.0.0.1:5000, which mlflow takes for a folder.

    mlflow refuses folders as stores too, unless the user has allowed them; then they are left to it.
    """
    scheme, found, _ = uri.partition("://")
    if (found and scheme != "file") or uri.partition(":")[0] in WITHOUT_SLASHES:
        return
    if os.environ.get(FOLDERS_ALLOWED, "").lower() in ("true", "1"):
        return
    raise UserError(
        f"MLFLOW_TRACKING_URI is {without_password(uri)!r}, which is no address of a tracking store: that of a server "
        "begins with http:// or https://, that of a database file with sqlite:///; a folder cannot be one"
    )
