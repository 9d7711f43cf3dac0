"""`embedge serve`: vectors for other programs, over pipes or HTTP."""

import argparse
import os
import signal
import sys
from contextlib import suppress
from typing import BinaryIO

from embedge.cli.options import add_model_arguments, model_path
from embedge.cli.streams import print_json
from embedge.encoder import Encoder
from embedge.errors import OptionError

EXAMPLES = """examples:
  embedge serve --stdio                         JSON lines, for a program that starts this one
  embedge serve --port 8000                     OpenAI's /v1/embeddings at 127.0.0.1
  EMBEDGE_API_KEY=... embedge serve --port 8000 --host 0.0.0.0 --allow-host vectors.lan

docs/sidecar.md has the protocol.
"""
KEY_VARIABLE = "EMBEDGE_API_KEY"
INSTALL = 'python -m pip install "embedge[server]"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of `embedge serve`."""
    parser.epilog = EXAMPLES
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--stdio", action="store_true", help="JSON lines on standard input and output")
    way.add_argument("--port", type=int, metavar="N", help="HTTP at this port; 0: any free one")
    http = parser.add_argument_group("with --port")
    http.add_argument("--host", help="address to listen at (default: 127.0.0.1, this machine only)")
    http.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"ask clients for this key (default: ${KEY_VARIABLE}, which other users cannot see)",
    )
    http.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="a name by which clients may call this server, besides localhost; may be repeated",
    )
    add_model_arguments(parser, dim=True)


def run(arguments: argparse.Namespace) -> int:
    """Serve until the input ends, or SIGTERM."""
    given = (arguments.host, arguments.api_key, arguments.allow_host)
    if arguments.stdio and given != (None, None, None):
        raise OptionError("--host, --api-key and --allow-host are for --port; leave them out")
    if arguments.stdio:
        _serve_stdio(arguments)
    else:
        _serve_http(arguments)
    return 0


def _encoder(arguments: argparse.Namespace) -> Encoder:
    return Encoder(
        model_path(arguments.model),
        providers=arguments.providers,
        threads=arguments.threads,
        dim=arguments.dim,
    )


def _serve_stdio(arguments: argparse.Namespace) -> None:
    from embedge.serve.stdio import StdioServer

    stdin, stdout = _pipes()
    server = StdioServer(_encoder(arguments), stdin, stdout)
    signal.signal(signal.SIGTERM, lambda number, frame: server.stop())
    server.serve()
    with suppress(OSError):  # the client has exited, and Python would say so later
        stdout.close()


def _serve_http(arguments: argparse.Namespace) -> None:
    try:
        from embedge.serve.run import Address, serve_http
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "h11", "anyio"):
            raise
        raise OptionError(
            f"'embedge serve --port' needs {error.name}, which is not installed; run: {INSTALL}"
        ) from error
    from embedge.serve.guard import Guard
    from embedge.serve.protocol import greeting

    key = arguments.api_key if arguments.api_key is not None else os.environ.get(KEY_VARIABLE)
    if key == "":
        raise OptionError(f"expected a key in --api-key or ${KEY_VARIABLE}, got nothing")
    encoder = _encoder(arguments)

    def ready(url: str) -> None:
        print_json({**greeting(encoder), "url": url})
        sys.stdout.flush()

    hosts = [name.lower() for name in arguments.allow_host or ()]
    serve_http(
        encoder,
        Address(arguments.host or "127.0.0.1", arguments.port),
        Guard(hosts, key),
        ready,
    )


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output as bytes; whatever else is printed goes to standard error."""
    if sys.stdin is None or sys.stdout is None:  # a Windows program without a console
        raise OptionError(
            "expected standard input and output, got none; build the program with a console "
            "and have its parent hide the window"
        )
    sys.stdout.flush()
    output = os.dup(sys.stdout.fileno())
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(sys.stdin.fileno(), os.O_BINARY)
        msvcrt.setmode(output, os.O_BINARY)
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return sys.stdin.buffer, os.fdopen(output, "wb")
