"""`embedge completion`: a script that completes commands, options and file names in a shell.

shtab writes it. It is an extra, as it is needed only once, when the script is made.
"""

import argparse
import importlib
from contextlib import suppress

from embedge.cli.parser import Parser
from embedge.errors import ExportError, OptionError

EXAMPLES = """examples:
  embedge completion bash > ~/.local/share/bash-completion/completions/embedge
  embedge completion zsh > ~/.zfunc/_embedge
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge completion`."""
    parser.epilog = EXAMPLES
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell it is for")


def run(arguments: argparse.Namespace) -> int:
    """Print the script.

    Raises:
        OptionError: shtab is not installed.
    """
    try:
        shtab = importlib.import_module("shtab")
    except ModuleNotFoundError as error:
        raise OptionError(
            'completion scripts are written by shtab; run: python -m pip install "embedge'
            '[completion]"'
        ) from error
    print(shtab.complete(_whole_parser(), shell=arguments.shell))
    return 0


def _whole_parser() -> argparse.ArgumentParser:
    """One parser of all commands that are installed."""
    from embedge.cli.commands import COMMANDS, load

    parser = argparse.ArgumentParser(prog="embedge", allow_abbrev=False)
    parser.add_argument("-V", "--version", action="version", version="")
    commands = parser.add_subparsers(parser_class=Parser)
    for command in COMMANDS:
        with suppress(ExportError):
            module = load(command)
            module.add_arguments(
                commands.add_parser(command.name, help=command.summary, description=command.summary)
            )
    return parser
