"""Records in the Medical Event Data Standard (MEDS) to stays in bins of hours, through DuckDB."""
