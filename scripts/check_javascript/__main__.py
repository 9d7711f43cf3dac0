"""Run examples/node's reader in Node and in headless Chromium, and compare transformers.js.

    npm install --prefix FOLDER @huggingface/tokenizers@0.2.0 onnxruntime-node@1.30.0 \\
        onnxruntime-web@1.30.0 @huggingface/transformers@4.3.1
    python scripts/check_javascript --packages FOLDER --data DATA

DATA has scifact/, stsb/ and text/. Both run the same weights on one thread: transformers.js the
unpacked folder, one text at a time. Cosines are to Encoder, over texts within the model's limit and
over longer ones. Exit status 1 where the reader's are below 0.9999 in Node or
0.999 in Chromium. Nothing leaves the machine.
"""

import argparse
import http.server
import importlib.machinery
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from embedge import Encoder
from embedge.modelfile.default import default_model
from embedge.modelfile.file import read
from embedge.modelfile.unpack import unpack

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 560  # seconds that a run may take
LEAST = {"Node": 0.9999, "Chromium (WASM)": 0.999}  # WebAssembly rounds differently from x86
FLAGS = (
    "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan",
)  # fmt: skip
NODE = """
import { readFile, writeFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import * as transformers from "@huggingface/transformers";
import { load } from "./embedge.mjs";
import { measure } from "./measure.mjs";
const texts = JSON.parse(await readFile("texts.json"));
const bytes = await readFile("unpacked/onnx/model.onnx");
const folder = { parent: process.cwd(), name: "unpacked" };
const found = await measure({ load, ort, transformers, bytes, texts, folder });
await writeFile("node.json", JSON.stringify(found));
"""
PAGE = """<!doctype html><script type="importmap">{"imports": {
"@huggingface/tokenizers": "/node_modules/@huggingface/tokenizers/dist/tokenizers.mjs",
"@huggingface/transformers": "/node_modules/@huggingface/transformers/dist/transformers.web.js",
"onnxruntime-common": "/node_modules/onnxruntime-common/dist/esm/index.js",
"onnxruntime-web/webgpu": "/node_modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
"onnxruntime-web/wasm": "/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs"
}}</script><script type="module">
const answer = (found) => fetch("/answer", { method: "POST", body: JSON.stringify(found) });
try {
  const ort = await import("onnxruntime-web/wasm");
  const webgpu = await import("onnxruntime-web/webgpu");
  const transformers = await import("@huggingface/transformers");
  const { load } = await import("/embedge.mjs");
  const { measure } = await import("/measure.mjs");
  for (const { wasm } of [ort.env, webgpu.env]) {
    wasm.wasmPaths = "/node_modules/onnxruntime-web/dist/";
    wasm.numThreads = 1;
  }
  transformers.env.backends.onnx.wasm.wasmPaths = WASM;
  transformers.env.backends.onnx.wasm.numThreads = 1;
  const texts = await (await fetch("/texts.json")).json();
  const bytes = new Uint8Array(await (await fetch("/unpacked/onnx/model.onnx")).arrayBuffer());
  const folder = { parent: "/", name: "unpacked" };
  await answer(await measure({ load, ort, transformers, bytes, texts, folder, webgpu }));
} catch (error) {
  await answer({ error: `${error.message} ${error.stack}` });
}
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serve a folder, and keep what the page posts."""

    extensions_map: ClassVar = {
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *arguments: Any, answers: list[Any], **options: Any) -> None:
        self.answers = answers
        super().__init__(*arguments, **options)

    def do_POST(self) -> None:
        self.answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()
        self.server.answered.set()  # type: ignore[attr-defined]

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing of requests."""


def run_node(folder: Path) -> Any:
    (folder / "node.mjs").write_text(NODE, encoding="utf-8")
    subprocess.run(["node", "node.mjs"], cwd=folder, check=True, timeout=PATIENCE)
    return json.loads((folder / "node.json").read_text("utf-8"))


def run_chromium(folder: Path, program: str) -> Any:
    nested = "node_modules/@huggingface/transformers/node_modules/onnxruntime-web/dist/"
    wasm = nested if (folder / nested).is_dir() else "node_modules/onnxruntime-web/dist/"
    page = PAGE.replace("WASM", json.dumps(f"/{wasm}"))
    (folder / "index.html").write_text(page, encoding="utf-8")
    answers: list[Any] = []
    handler = partial(Handler, directory=str(folder), answers=answers)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.answered = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        profile = f"--user-data-dir={folder / 'profile'}"
        address = f"http://127.0.0.1:{server.server_port}/"
        browser = subprocess.Popen(
            [program, *FLAGS, profile, address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            server.answered.wait(PATIENCE)  # type: ignore[attr-defined]
        finally:
            browser.terminate()
            browser.wait(30)
            server.shutdown()
    return answers[0] if answers else {"error": f"no answer within {PATIENCE} seconds"}


def real_texts(data: Path, count: int) -> list[str]:
    """A sample of the texts of scripts/check_unpack."""
    path = str(ROOT / "scripts" / "check_unpack")
    loader = importlib.machinery.SourceFileLoader("check_unpack", path)
    spec = importlib.util.spec_from_loader("check_unpack", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    texts: list[str] = module.real_texts(data, count)
    return texts


def report(where: str, found: Any, own: np.ndarray, long: np.ndarray) -> bool:
    """Print what a place gave; returns whether the reader holds."""
    if "error" in found:
        print(f"{where}: FAILED: {found['error']}")
        return False
    probes = found["probes"]
    print(
        f"{where}: {probes['probes']} probes hold, {probes['exact']} bit for bit, "
        f"least cosine {probes['least']:.6f}"
    )
    least = {}
    rates = {
        "reader": f"{found['readerRate']:.0f}, one at a time {found['readerSingleRate']:.0f}",
        "transformers": f"one at a time {found['transformersRate']:.0f}",
    }
    for name, rate in rates.items():
        vectors = np.array(found[name], np.float32)
        cosines = (own * vectors).sum(1) / np.linalg.norm(vectors, axis=1)
        least[name] = cosines[~long].min()
        print(
            f"  {name:12}  least {least[name]:.6f}  mean {cosines.mean():.6f}  "
            f"longer texts {cosines[long].min():.6f}  below 0.9999: {(cosines < 0.9999).sum()}  "
            f"texts/s {rate}"
        )
    if "webgpu" in found:
        print(f"  WebGPU        {found['webgpu']}")
    return bool(least["reader"] >= LEAST[where])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--packages", type=Path, default=ROOT / "examples" / "node")
    parser.add_argument("--texts", type=int, default=250, help="how many (default: 250)")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # truncation is reported below
    texts = real_texts(arguments.data, arguments.texts)
    encoder = Encoder(arguments.model)
    own = encoder.encode(texts, overflow="truncate")
    long = np.array(encoder.count_tokens(texts)) > encoder.max_tokens
    print(f"{len(texts)} texts, {long.sum()} of them longer than {encoder.max_tokens} tokens")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        unpack(read(arguments.model), folder / "unpacked")
        shutil.copy(ROOT / "examples" / "node" / "embedge.mjs", folder)
        shutil.copy(Path(__file__).with_name("measure.mjs"), folder)
        (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        packages = (arguments.packages / "node_modules").resolve()
        (folder / "node_modules").symlink_to(packages, target_is_directory=True)
        holds = report("Node", run_node(folder), own, long)
        if arguments.chromium:
            found = run_chromium(folder, arguments.chromium)
            holds &= report("Chromium (WASM)", found, own, long)
        else:
            print("Chromium: not found; install Debian's package chromium")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
