"""From raw records to tensors: cohorts, folds, scaling, masking, directions."""
