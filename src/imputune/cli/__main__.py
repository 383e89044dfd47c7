"""`python -m imputune.cli`, as MLproject calls it."""

from imputune.cli import main

if __name__ == "__main__":  # training's worker processes import this file too
    main()
