"""The arguments of `embedge serve` that are refused before anything is served."""

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = """
import sys
sys.modules[{!r}] = None
from embedge.cli.main import main
sys.exit(main())
"""


def serve(*arguments: str, program: tuple[str, ...] = ("-m", "embedge")) -> tuple[int, str]:
    command = [sys.executable, *program, "serve", *arguments]
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("missing", "present"), [("starlette", "uvicorn"), ("uvicorn", "starlette")]
)
def test_the_server_says_what_to_install(tiny_file: Path, missing: str, present: str) -> None:
    pytest.importorskip(present, reason='needs: python -m pip install "embedge[server]"')
    arguments = "--port", "0", "--model", str(tiny_file)
    status, shown = serve(*arguments, program=("-c", WITHOUT.format(missing)))
    assert status == 2
    assert f"needs {missing}" in shown
    assert 'python -m pip install "embedge[server]"' in shown


@pytest.mark.parametrize(
    "arguments", [["--host", "127.0.0.1"], ["--api-key", "x"], ["--allow-host", "x"]]
)
def test_pipes_refuse_what_is_for_http(arguments: list[str]) -> None:
    status, shown = serve("--stdio", *arguments)
    assert status == 2
    assert "--host, --api-key and --allow-host are for --port" in shown


def test_one_way_has_to_be_chosen() -> None:
    assert serve()[0] == 2
    assert serve("--stdio", "--port", "0")[0] == 2


def test_an_empty_key_is_refused(tiny_file: Path) -> None:
    pytest.importorskip("starlette", reason='needs: python -m pip install "embedge[server]"')
    status, shown = serve("--port", "0", "--api-key", "", "--model", str(tiny_file))
    assert status == 2
    assert "expected a key in --api-key or $EMBEDGE_API_KEY, got nothing" in shown


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_there_is_not(tiny_file: Path, port: str) -> None:
    pytest.importorskip("uvicorn", reason='needs: python -m pip install "embedge[server]"')
    status, shown = serve("--port", port, "--model", str(tiny_file))
    assert status == 2
    assert f"expected a port from 0 to 65535, got {port}" in shown
