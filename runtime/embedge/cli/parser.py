"""The argument parser of every command: whole option names only, and "did you mean"."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from embedge.cli.terminal import visible


class Parser(argparse.ArgumentParser):
    """Parse options and arguments in any order; a mistyped option is answered with a near one."""

    def __init__(self, prog: str, description: str, **options: Any) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def parse_all(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse a command's arguments; leaves the process where they make no sense."""
        parsed, unknown = self.parse_known_intermixed_args(arguments)
        if unknown:
            names = [name.partition("=")[0] for name in unknown]
            hints = [did_you_mean(name, self._option_string_actions) for name in names]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(hints)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong, and where to read more."""
        super().error(visible(f"{message}; try '{self.prog} --help'"))

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help or a version; argparse's own would lose an error of the output."""
        if message:
            (file or sys.stderr).write(message)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names what is like ``name``, or the empty string."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
