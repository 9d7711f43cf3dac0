"""The commands in examples/systemd and examples/docker are ones that `embedge serve` takes."""

import argparse
import json
import re
import shlex
from pathlib import Path

from embedge.cli.serve import add_arguments

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_the_unit_serves_this_machine_only() -> None:
    unit = (EXAMPLES / "systemd" / "embedge.service").read_text(encoding="utf-8")
    (command,) = re.findall("^ExecStart=(.*)$", unit, re.M)
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("/opt/embedge/bin/embedge", "serve")
    assert (parsed(arguments).port, parsed(arguments).host) == (8000, None)


def test_the_image_serves_http_and_pipes() -> None:
    file = (EXAMPLES / "docker" / "Dockerfile").read_text(encoding="utf-8")
    (entry,) = re.findall("^ENTRYPOINT (.*)$", file, re.M)
    (arguments,) = re.findall("^CMD (.*)$", file, re.M)
    assert json.loads(entry) == ["/opt/embedge/bin/embedge", "serve"]
    assert (parsed(json.loads(arguments)).port, parsed(json.loads(arguments)).host) == (
        8000,
        "0.0.0.0",
    )
