"""Users and passwords of tracking stores: where mlflow reads them, and how they are kept out of every text."""

import os
import re
from urllib.parse import unquote, urlsplit, urlunsplit

USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
SECRETS = (PASSWORD, "MLFLOW_TRACKING_TOKEN", "PGPASSWORD")
SHORTEST_SECRET = 4  # characters; a shorter one would be found in ordinary words
_handed_over: dict[str, dict[str, str | None]] = {}
"""The server whose user and password this process took from its URI, with the variables as they were before."""


def handed_over(uri: str) -> str:
    """Return a store's URI without user and password, which go to the variables from which mlflow reads them.

    So no address that mlflow logs, tags or shows in an error has them. They do not go to another server: the variables
    are as they were before, as soon as this process opens another store. The URI of a database keeps them, because
    SQLAlchemy needs them there.
    """
    parts = urlsplit(uri) if uri.startswith("http") else None
    if parts is None or "@" not in parts.netloc:
        if uri not in _handed_over:
            _take_back()
        return uri
    login, _, host = parts.netloc.rpartition("@")
    plain = urlunsplit(parts._replace(netloc=host))
    _take_back()
    _handed_over[plain] = {name: os.environ.get(name) for name in (USERNAME, PASSWORD)}
    username, _, password = login.partition(":")
    os.environ[USERNAME], os.environ[PASSWORD] = unquote(username), unquote(password)
    return plain


def without_password(text: str) -> str:
    """Return a text without the users and passwords of the addresses in it, and without those of the environment."""
    for name in SECRETS:
        if len(secret := os.environ.get(name, "")) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    text = re.sub(r"//[^/\s]*@", "//", text)
    text = re.sub(r"//[^\s@:/]+:[^\s@]*@", "//", text)  # a password with a slash
    return re.sub(r"(?i)([?&](?:password|passwd|pwd|sslpassword|token)=)[^&\s]*", r"\1***", text)


def _take_back() -> None:
    for before in _handed_over.values():
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
    _handed_over.clear()
