"""The command, in this process and as `python -m embedge`."""

import io
import json
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from embedge import Encoder, __version__
from embedge.cli.commands import COMMANDS
from embedge.cli.main import main

from . import tiny
from .conftest import Run

Capture = pytest.CaptureFixture[str]


def type_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def test_embed_prints_a_line_of_numbers_for_each_text(tiny_file: Path, capsys: Capture) -> None:
    assert main(["embed", "--model", str(tiny_file), "a b", "", "c b"]) == 0
    assert capsys.readouterr() == (
        "0.600000 0.800000\n1.000000 0.000000\n-0.242536 0.970143\n",
        "",
    )


@pytest.mark.parametrize("data", [b"a b\n\na", b"a b\r\n\r\na\r\n"])
def test_embed_reads_lines_of_standard_input(
    tiny_file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    type_in(monkeypatch, data)
    assert main(["embed", "--model", str(tiny_file)]) == 0
    assert capsys.readouterr().out == "0.600000 0.800000\n1.000000 0.000000\n1.000000 0.000000\n"


def test_embed_of_empty_standard_input_prints_nothing(
    tiny_file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, b"")
    assert main(["embed", "--model", str(tiny_file)]) == 0
    assert capsys.readouterr() == ("", "")


def test_embed_json_has_an_object_a_line(
    tiny_file: Path, capsys: Capture, encoder: Encoder
) -> None:
    assert main(["embed", "--json", "--model", str(tiny_file), "a b", "naïve 🙂"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"text": "a b", "vector": encoder.encode("a b").tolist()}
    assert second["text"] == "naïve 🙂"


def test_embed_json_pairs_texts_with_their_vectors_in_long_input(
    tiny_file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, b"a\nb b b\n" * 2100)
    assert main(["embed", "--json", "--model", str(tiny_file)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 4200
    assert all(line["vector"][1] == 0 for line in lines if line["text"] == "a")
    assert all(line["vector"][1] > 0.9 for line in lines if line["text"] == "b b b")


def test_embed_output_writes_a_npy_file(
    tiny_file: Path, capsys: Capture, tmp_path: Path, encoder: Encoder
) -> None:
    path = tmp_path / "vectors.npy"
    (tmp_path / "texts.txt").write_text("a b\nb")
    arguments = ["-q", "-m", str(tiny_file), "-o", str(path), str(tmp_path / "texts.txt")]
    assert main(["embed", *arguments]) == 0
    assert capsys.readouterr() == ("", "")
    found = np.load(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, encoder.encode_document(["a b", "b"]))
    names = sorted(item.name for item in tmp_path.iterdir())
    assert names == ["texts.txt", "vectors.npy", "vectors.npy.json"]


def test_embed_takes_the_encoders_options(tiny_file: Path, capsys: Capture) -> None:
    options = ["--prompt", "query", "--dim", "1", "--threads", "1", "--providers", "cpu"]
    assert main(["embed", "--model", str(tiny_file), *options, "b"]) == 0
    assert capsys.readouterr().out == "1.000000\n"


def test_truncation_is_counted_at_the_end_on_standard_error(python: Run, tiny_file: Path) -> None:
    text = "a b " * 9
    result = python("-m", "embedge", "embed", "--model", str(tiny_file), text, "a", text)
    assert result.returncode == 0
    assert result.stderr == "embedge: 2 texts were truncated to 8 tokens\n"
    assert len(result.stdout.splitlines()) == 3


def test_options_and_texts_come_in_any_order(tiny_file: Path, capsys: Capture) -> None:
    assert main(["embed", "b", "--dim", "1", "a b", "-m", str(tiny_file), "--", "-x"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_model_may_be_named_by_the_environment(
    tiny_file: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDGE_MODEL", str(tiny_file))
    assert main(["embed", "a b"]) == 0
    assert capsys.readouterr().out == "0.600000 0.800000\n"
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"
    assert main(["embed", "-m", "missing.onnx", "a b"]) == 2
    assert "missing.onnx: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["notes.txt", "tpyo.txt", "my notes.TXT.gz", "data/*.csv", "./a"])
def test_a_text_that_looks_like_a_file_is_warned_of(
    tiny_file: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("a b")
    assert main(["embed", "-m", str(tiny_file), name]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    why = "a file or folder has that name" if name == "notes.txt" else "it looks like a path"
    assert err == (
        f"embedge: encoding {name!r} as text, though {why}; add --output VECTORS to encode what "
        "files hold\n"
    )


@pytest.mark.parametrize("name", [r"\\host\share\a b.c", "//host/share", r"\/host\a", r"/\host a"])
def test_no_other_computer_is_asked_whether_a_text_is_a_file(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: list[Path] = []
    exists = Path.exists

    def watched(path: Path, **options: bool) -> bool:
        asked.append(path)
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", watched)
    assert main(["embed", "-m", str(tiny_file), "--overflow", "mean", name]) == 0
    assert Path(name) not in asked


@pytest.mark.parametrize(
    "text", ["a and/or b", "what? a. b", "a 3.5 b", "x" * 5000, "\0", "a\n.txt"]
)
def test_other_texts_are_not(tiny_file: Path, capsys: Capture, text: str) -> None:
    assert main(["embed", "-m", str(tiny_file), "--overflow", "mean", text]) == 0
    assert capsys.readouterr().err == ""


def test_info_shows_what_is_in_a_file(tiny_file: Path, capsys: Capture) -> None:
    assert main(["info", str(tiny_file)]) == 0
    out = capsys.readouterr().out
    for line in (
        r"name +tiny", r"dim +2", r"max_tokens +8", r"license +Apache-2\.0", r"prompts",
        r"  query +a ", r"default_prompt +-", r"fingerprint +[0-9a-f]{64}", r"  a b",
        r"  cosine +1\.0", rf"bytes +{tiny_file.stat().st_size}",
    ):  # fmt: skip
        assert re.search(f"^{line}$", out, re.M), line


def test_what_a_file_says_does_not_command_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    settings = replace(tiny.SETTINGS, name="x\x1b[2J\nname  y", prompts={"\r": "é\u202e"})
    probe = tiny.probe("a\x07", np.array([1, 0], np.float32), np.array([1, 0], np.float32))
    path = tiny.write(tmp_path / "x.onnx", tiny.model(settings=settings, probes=[probe]))
    assert main(["info", str(path)]) == 0
    assert main(["verify", str(path)]) in (0, 1)
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.split("\n"))
    for shown in (r"x\x1b[2J\nname  y", r"  \r  é\u202e", r"  a\x07"):
        assert f"{shown}\n" in out


def test_info_json_is_what_the_encoder_says(
    tiny_file: Path, capsys: Capture, encoder: Encoder
) -> None:
    assert main(["info", str(tiny_file), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    expected = json.loads(json.dumps(encoder.info))
    del expected["providers"], expected["self_test"]  # of a session
    assert facts == expected


def test_info_and_verify_know_the_default_model(capsys: Capture) -> None:
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "all-MiniLM-L6-v2"
    assert main(["verify"]) == 0
    assert "The probes passed" in capsys.readouterr().out


def test_verify_says_that_the_probes_hold(tiny_file: Path, capsys: Capture) -> None:
    assert main(["verify", str(tiny_file)]) == 0
    assert capsys.readouterr() == (
        "file's own  source fp32  text\n"
        "  1.000000     1.000000  a b\n"
        "The probes passed: cosine to the file's own vectors at least 0.999.\n",
        "",
    )


def test_verify_says_that_they_do_not(tmp_path: Path, capsys: Capture) -> None:
    wrong = np.array([0.8, 0.6], np.float32)
    path = tiny.write(tmp_path / "x.onnx", tiny.model(probes=[tiny.probe("a b", tiny.A_B, wrong)]))
    assert main(["verify", str(path)]) == 1
    out = capsys.readouterr().out
    assert "  0.960000     1.000000  a b\n" in out
    assert "The probes FAILED" in out
    assert main(["verify", "--json", str(path)]) == 1
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["holds"] is False
    assert verdict["probes"][0]["output"] == pytest.approx(0.96, abs=1e-6)


TINY = "TINY"  # stands for the tiny file's path
BAD: list[tuple[list[str], str]] = [
    (["info", "missing.onnx"], "missing.onnx: there is no such file"),
    (["verify", "."], "this is a folder; give the path"),
    (["embed", "--model", "missing.onnx", "a"], "there is no such file"),
    (["embed", "--model", TINY, "--prompt", "nope", "a"], "no prompt named 'nope'"),
    (["embed", "--model", TINY, "--dim", "9", "a"], "expected dim to be an integer from 1 to 2"),
    (
        ["embed", "--model", TINY, "--threads", "0", "a"],
        "expected threads to be an integer of at least 1",
    ),
    (["embed", "--model", TINY, "--providers", "tpu", "a"], "there is no provider 'tpu' here"),
    (
        ["embed", "--model", TINY, "--overflow", "error", "a b " * 9],
        "text 0 has more than 8 tokens",
    ),
    (["embed", "--model", TINY, "a", "\udcff"], "text 1 holds a lone surrogate"),
    (
        ["embed", "--model", TINY, "--output", "no/x.npy"],
        f"--output {Path('no/x.npy')} cannot be",
    ),
    (["embed", "--model", TINY, "--output", f"{__file__}/x.npy"], "cannot be written"),
    (["embed", "--model", TINY, "--output", "."], "--output . cannot be written"),
    (["embed", "--model", TINY, "--output", "x.npy", "a b"], "no such file or folder: a b"),
    (["embed", "--model", TINY, "--output", "/"], f"--output {Path('/')} cannot be written"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_errors_are_one_clean_line_and_status_2(
    tiny_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(tiny_file) if part == TINY else part for part in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"embedge: .*{re.escape(message)}.*\n", err), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sing"], "there is no command 'sing'; try 'embedge --help'"),
        (["emebd", "a"], "there is no command 'emebd'; did you mean 'embed'?"),
        (["--help-me"], "unrecognized arguments: --help-me; did you mean '--help'?"),
        (["embed", "--over", "mean", "a"], "unrecognized arguments: --over; did"),
        (["embed", "--outptu=v.npy"], "--outptu=v.npy; did you mean '--output'?"),
        (["embed", "--xyzzy"], "unrecognized arguments: --xyzzy; try 'embedge embed --help'"),
        (["embed", "--overflow", "explode", "a"], "invalid choice: 'explode'"),
        (["embed", "--dim", "many"], "invalid int value: 'many'"),
    ],
)
def test_arguments_that_make_no_sense_are_named(
    capsys: Capture, arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    usage = f"usage: embedge {arguments[0]} " if arguments[0] == "embed" else "usage: embedge ["
    assert err.startswith(usage)


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_has_help_with_an_example(capsys: Capture, command: str) -> None:
    assert main([command, "--help"]) == 0
    help_text = capsys.readouterr().out
    assert f"examples:\n  embedge {command}" in help_text


def test_without_arguments_every_command_is_listed(capsys: Capture) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for command in COMMANDS:
        assert re.search(rf"^  {command.name} +{command.summary}$", out, re.M)


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version(capsys: Capture, option: str) -> None:
    assert main([option]) == 0
    assert capsys.readouterr().out == f"embedge {__version__}\n"


def test_python_dash_m_embedge_is_the_command(python: Run, tiny_file: Path) -> None:
    arguments = ("-m", "embedge", "embed", "--model", str(tiny_file))
    result = python(*arguments, stdin="a b\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "0.600000 0.800000\n", "")
    result = python(*arguments[:2], "info", "missing.onnx")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("embedge: missing.onnx: there is no such file")


WITHOUT_EXTRA = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from embedge.cli.main import main
sys.exit(main({arguments!r}))
"""
EXTRA = ("torch", "transformers", "optimum", "onnx", "sentence_transformers", "huggingface_hub")


def test_export_without_the_extra_says_the_install_line(python: Run, tmp_path: Path) -> None:
    arguments = ["export", "some/model", "-o", "x.onnx"]
    result = python(WITHOUT_EXTRA.format(missing=EXTRA, arguments=arguments))
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("embedge: ")
    assert 'python -m pip install "embedge[export]"' in result.stderr
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("command", ["export", "compare"])
@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_the_exporter_its_commands_say_the_install_line(
    python: Run, command: str, arguments: list[str]
) -> None:
    """As in a frozen app, which has no `embedge_export` at all."""
    code = WITHOUT_EXTRA.format(missing=("embedge_export",), arguments=[command, *arguments])
    result = python(code)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"embedge: install: 'embedge {command}' needs the exporter, which is not installed; "
        'run: python -m pip install "embedge[export]"\n'
    )


def test_a_command_imports_no_other(python: Run) -> None:
    names = "[name for name in sys.modules if name.startswith(('embedge.c', 'embedge_export'))]"
    result = python(
        f"import sys\nfrom embedge.cli.main import main\nmain(['info'])\nprint({names})"
    )
    loaded = result.stdout.splitlines()[-1]
    assert "embedge.cli.info" in loaded
    for name in ("embedge.cli.embed", "embedge.cli.verify", "embedge.corpus", "embedge_export"):
        assert name not in loaded


def test_all_other_commands_work_without_the_extra(python: Run, tiny_file: Path) -> None:
    arguments = ["embed", "--model", str(tiny_file), "a b"]
    result = python(WITHOUT_EXTRA.format(missing=EXTRA, arguments=arguments))
    assert (result.returncode, result.stdout) == (0, "0.600000 0.800000\n"), result.stderr


def test_warnings_are_shown_as_before_when_the_command_has_ended(tiny_file: Path) -> None:
    before = warnings.showwarning
    assert main(["info", str(tiny_file)]) == 0
    assert warnings.showwarning is before
