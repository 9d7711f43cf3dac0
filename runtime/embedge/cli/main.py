"""The command `embedge`. Results go to standard output, everything else to standard error."""

import argparse
import os
import sys
from collections.abc import Sequence

from embedge import __version__
from embedge.cli.commands import COMMANDS, command_parser
from embedge.cli.signals import Terminated, sigterm_raises
from embedge.cli.streams import plain_warnings, say, use_utf8
from embedge.errors import EmbedgeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 (verify: does not hold) or 2 (an error)."""
    use_utf8()
    with plain_warnings():
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        with sigterm_raises():
            status = _dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as stopped:
        return 143 if isinstance(stopped, Terminated) else 130
    except EmbedgeError as error:
        say(str(error))
        return 2
    return status


def _dispatch(arguments: list[str]) -> int:
    parser = _parser()
    name = parser.parse_args(arguments[:1]).command
    if name is None:
        parser.print_help()
        return 0
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        names = ", ".join(command.name for command in COMMANDS)
        parser.error(f"there is no command {name!r}; the commands are {names}")
    parsed = command_parser(command).parse_args(arguments[1:])
    status: int = parsed.run(parsed)
    return status


def _parser() -> argparse.ArgumentParser:
    """The parser of what comes before a command's own arguments."""
    width = max(len(command.name) for command in COMMANDS)
    lines = [f"  {command.name:{width}}  {command.summary}" for command in COMMANDS]
    parser = argparse.ArgumentParser(
        prog="embedge",
        usage="embedge [-h] [-V] COMMAND ...",
        description="Sentence vectors at the edge, from one quantized ONNX file.",
        epilog="\n".join(["commands:", *lines, "", "'embedge COMMAND --help' describes each."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"embedge {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser
