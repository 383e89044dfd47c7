"""Prints the links that open compared runs side by side; `make ui` calls it: python -m imputune.cli.links PORT."""

import sys
from pathlib import Path

import typer

from imputune.errors import UserError
from imputune.settings.file import find_root
from imputune.tracking.comparison_view import stored_links


def main() -> None:
    """Print a line for each stored view, for a UI on a port of this machine; one line says what is wrong."""
    try:
        _, port = sys.argv
    except ValueError:
        sys.exit("error: name the UI's port: python -m imputune.cli.links 5000")
    try:
        for link in stored_links(find_root(Path.cwd()), f"http://127.0.0.1:{port}"):
            typer.echo(f"runs side by side: {link}")
    except UserError as error:
        sys.exit(f"error: no links to the runs: {error}")


if __name__ == "__main__":
    main()
