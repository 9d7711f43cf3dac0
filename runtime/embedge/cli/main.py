"""The command `embedge`. Results go to standard output, everything else to standard error.

Exit statuses: 0; 1 where `verify` finds that a file does not give its vectors; 2 for an error,
which is one line; 130 for Ctrl-C, 143 for SIGTERM.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress

from embedge import __version__
from embedge.cli.commands import COMMANDS, command_parser
from embedge.cli.parser import Parser, did_you_mean
from embedge.cli.signals import Terminated, sigterm_raises
from embedge.cli.streams import abandon, plain_warnings, reader_left, say, standard_streams
from embedge.errors import EmbedgeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in this process; returns its exit status."""
    with standard_streams(), plain_warnings():
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        try:
            with sigterm_raises():
                status = _dispatch(arguments)
        except SystemExit as left:  # how argparse ends: --help, --version, a usage error
            status = left.code if isinstance(left.code, int) else 0
        sys.stdout.flush()
    except KeyboardInterrupt as stopped:
        with suppress(OSError):
            sys.stdout.flush()
        return 143 if isinstance(stopped, Terminated) else 130
    except EmbedgeError as error:
        say(str(error))
        return 2
    except OSError as error:
        return _stopped_by(error)
    except MemoryError:
        say("there is not enough memory")
        return 2
    return status


def _stopped_by(error: OSError) -> int:
    """The status after a file or standard output could not be used."""
    if error.filename is not None:
        say(f"{error.filename}: {error.strerror}")
        return 2
    if isinstance(error, FileNotFoundError):  # of os.getcwd
        say("the current folder is not there any more; change to another")
        return 2
    abandon(sys.stdout)
    if reader_left(error):
        return 0
    say(f"standard output cannot be written: {error.strerror or error}")
    return 2


def _dispatch(arguments: list[str]) -> int:
    parser = _parser()
    name = parser.parse_all(arguments[:1]).command
    if name is None:
        print(parser.format_help(), end="")
        return 0
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        hint = did_you_mean(name, [command.name for command in COMMANDS])
        parser.error(f"there is no command {name!r}{hint}")
    parsed = command_parser(command).parse_all(arguments[1:])
    status: int = parsed.run(parsed)
    return status


def _parser() -> Parser:
    """The parser of what comes before a command's own arguments."""
    width = max(len(command.name) for command in COMMANDS)
    lines = [f"  {command.name:{width}}  {command.summary}" for command in COMMANDS]
    parser = Parser(
        "embedge",
        "Sentence vectors at the edge, from one quantized ONNX file.",
        usage="embedge [-h] [-V] COMMAND ...",
        epilog="\n".join(["commands:", *lines, "", "'embedge COMMAND --help' describes each."]),
    )
    parser.add_argument("-V", "--version", action="version", version=f"embedge {__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser
