"""What `import imputune` offers to a notebook or script; imputune/__init__.py loads each name when it is first used."""
