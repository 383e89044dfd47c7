"""Bundles of fold models, registered in MLflow as versions of a model."""

import imputune.tracking  # noqa: F401 it sets what mlflow reads at its first import
