"""The table of commands. A command's module is imported only when that command is asked for."""

import importlib
from types import ModuleType
from typing import NamedTuple

from embedge.cli.parser import Parser
from embedge.errors import ExportError

INSTALL_EXPORT = 'python -m pip install "embedge[export]"'


class Command(NamedTuple):
    """A command: its module has `add_arguments(parser)` and `run(arguments) -> exit status`."""

    name: str
    summary: str
    module: str


COMMANDS = (
    Command("embed", "make the vectors of texts, files or folders", "embedge.cli.embed"),
    Command("search", "print the texts most like a query", "embedge.cli.search"),
    Command("duplicates", "print groups of near-duplicates", "embedge.cli.duplicates"),
    Command("serve", "answer other programs over pipes or HTTP", "embedge.cli.serve"),
    Command("info", "show what is in a model file", "embedge.cli.info"),
    Command("unpack", "write the folder that other tools load", "embedge.cli.unpack"),
    Command("verify", "run a file's probes on this machine", "embedge.cli.verify"),
    Command("bench", "measure model files on this machine", "embedge.cli.bench"),
    Command("completion", "print a shell's completion script", "embedge.cli.completion"),
    # The only imports upwards: the exporter is an extra, imported by name when it is asked for.
    Command("export", "make a model file of a sentence transformer", "embedge_export.cli"),
    Command("models", "list the models that have a recipe", "embedge_export.models"),
    Command("compare", "compare the vectors of two model files", "embedge_export.compare"),
)


def command_parser(command: Command) -> Parser:
    """Import a command's module and build its parser.

    Raises:
        ExportError: the command is the exporter's, which is not installed.
    """
    module = load(command)
    summary = f"{command.summary[0].upper()}{command.summary[1:]}."
    parser = Parser(f"embedge {command.name}", summary)
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
    return parser


def load(command: Command) -> ModuleType:
    """Import a command's module.

    Raises:
        ExportError: the command is the exporter's, which is not installed.
    """
    try:
        return importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "embedge_export":
            raise
        raise ExportError(
            "install",
            f"'embedge {command.name}' needs the exporter, which is not installed; "
            f"run: {INSTALL_EXPORT}",
        ) from error
