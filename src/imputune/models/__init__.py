"""Networks; sizes arrive as numbers, no configuration and no files."""
