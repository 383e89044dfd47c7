"""All commands, which add themselves to the application."""

from imputune.cli import compare, data, evaluation, models, rivals, training
from imputune.cli.app import app

__all__ = ["app", "compare", "data", "evaluation", "models", "rivals", "training"]
