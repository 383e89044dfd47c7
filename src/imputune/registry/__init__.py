"""Bundles of fold models as registered versions."""
