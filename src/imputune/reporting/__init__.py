"""Words and figures: tables, figures, pages; no file is read here."""
