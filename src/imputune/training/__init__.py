"""Pretraining and fine-tuning; they report through a Recorder and know no tracker."""
