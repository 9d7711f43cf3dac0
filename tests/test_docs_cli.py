"""docs/cli.md is what the parsers say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_page_of_the_command_is_not_stale() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "docs_cli"), "--check"]
    result = subprocess.run(script, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
