"""Rivals: networks of other papers that read a record with its gaps and predict the outcome, one file each."""
