"""Training loops: pretraining of imputers, fine-tuning of heads; they report to a Recorder and know no tracker."""
