"""imputune: pretrain a clinical time-series imputer, fine-tune small heads on it, compare every run."""

__version__ = "0.1.0"
