"""Networks and other models; sizes arrive as numbers. No settings and no files."""
