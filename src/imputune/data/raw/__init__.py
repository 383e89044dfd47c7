"""From raw records to a cohort."""
