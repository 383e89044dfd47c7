"""Numbers: scores, their uncertainty, tests and comparisons. Words and figures are in `reporting`."""
