"""Raw records to tensors: cohorts, folds, scaling, masking, views."""
