"""The Node client of docs/desktop.md, as it stands there, with `embedge serve --stdio`."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedge import Encoder

from .conftest import PATIENCE

PAGE = Path(__file__).parent.parent.parent / "docs" / "desktop.md"
# Starts the child with the arguments given, and prints what comes of each request.
USE = """
const [program, ...args] = process.argv.slice(2);
const embedge = startEmbedge(program, args);
const shown = (promise) => promise.catch((error) => error.message);
Promise.all([
  shown(embedge.embed(["a b", "naïve 🙂"])),
  shown(embedge.embed(["a"], { prompt: "query" })),
  shown(embedge.embed(["a"], { prompt: "none" })),
  shown(embedge.embed(["\\ud800"])),
  shown(embedge.embed([])),
]).then((answers) => {
  console.log(JSON.stringify(answers));
  embedge.close();
});
"""


@pytest.fixture
def client(tmp_path: Path) -> list[str]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node 18 or newer on the PATH")
    (code,) = re.findall(r"^```js\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    script = tmp_path / "client.js"
    script.write_text(code + USE, encoding="utf-8")
    return [node, str(script)]


def answers(client: list[str], *program: str) -> Any:
    result = subprocess.run(
        [*client, *program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=PATIENCE,
        check=True,
    )
    return json.loads(result.stdout)


def test_vectors_and_errors_in_node(client: list[str], tiny_file: Path, encoder: Encoder) -> None:
    serve = sys.executable, "-m", "embedge", "serve", "--stdio", "--model", str(tiny_file)
    found = answers(client, *serve)
    assert found[0] == encoder.encode(["a b", "naïve 🙂"]).tolist()
    assert found[1] == encoder.encode(["a"], prompt="query").tolist()
    assert "no prompt named 'none'" in found[2]
    assert "text 0 holds a lone surrogate" in found[3]
    assert found[4] == []


def test_a_child_that_ends_or_never_starts_rejects(client: list[str], tmp_path: Path) -> None:
    ended = answers(client, sys.executable, "-c", "import sys; sys.exit(3)")
    assert ended == ["embedge: ended with status 3"] * 5
    missing = answers(client, str(tmp_path / "nothing"))
    assert all("ENOENT" in message for message in missing)
