"""`python -m gapless` is the command `gapless`."""

from gapless.cli import main

if __name__ == "__main__":
    main()
