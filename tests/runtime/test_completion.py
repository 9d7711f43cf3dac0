"""`embedge completion`: what the script of a shell has to know."""

import shutil
import subprocess
import sys

import pytest

from embedge.cli.commands import COMMANDS
from embedge.cli.main import main

Capture = pytest.CaptureFixture[str]


def test_without_shtab_the_install_line_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert capsys.readouterr() == (
        "",
        "embedge: completion scripts are written by shtab; run: python -m pip install "
        '"embedge[completion]"\n',
    )


def test_the_script_knows_every_command_and_its_options(capsys: Capture) -> None:
    pytest.importorskip("shtab", reason="needs shtab: pip install '.[completion]'")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    for command in COMMANDS:
        assert f"_shtab_embedge_{command.name}_option_strings=" in script
    for option in ("--overflow", "--threshold", "--card", "--calibration"):
        assert option in script
    if bash := shutil.which("bash"):
        assert subprocess.run([bash, "-n"], input=script, text=True).returncode == 0
