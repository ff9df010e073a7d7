"""`python -m facedex.training`: the same as `facedex-train`."""

from facedex.training.cli import main

if __name__ == "__main__":
    main()
