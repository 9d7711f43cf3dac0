"""`python -m embedge` is the command `embedge`."""

from embedge.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
