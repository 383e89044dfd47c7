"""Metrics, comparison tables and figures."""
