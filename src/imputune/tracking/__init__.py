"""Runs in MLflow: starting, recording, reading and ending them. Only this room and `registry` import mlflow."""

import os

# mlflow reads this once, at its first import, so it is set before any module of this room imports mlflow.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
