"""``python -m amodal`` is the command line; ``accelerate launch -m amodal train ...`` needs it."""

from amodal.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
