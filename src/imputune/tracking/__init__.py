"""The only room that imports mlflow: runs, registry, bundles."""

import os

# mlflow reads this once, when it is first imported, and every import of mlflow comes after this file.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
