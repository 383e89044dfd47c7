"""MIMIC-III v1.4: the raw tables of the database to a cohort of 48 hours x 89 variables, through DuckDB."""
