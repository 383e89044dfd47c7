"""params.yaml: its words, its typed schema, reading and editing the file."""
