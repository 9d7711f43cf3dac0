"""Converts the weights for the peers: `convert.py onnx|openvino FOLDER [CALIBRATION]`.

Run in the environment of that backend. The recipes are those of sentence-transformers' own
export functions. CALIBRATION is a JSON list of texts for the static int8 file.
"""

import json
import shutil
import sys
from pathlib import Path


def onnx(folder: Path) -> None:
    """Write fp32, `qint8_avx512_vnni` and `quint8_avx2`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.backend import export_dynamic_quantized_onnx_model

    kwargs = {"provider": "CPUExecutionProvider"}
    model = SentenceTransformer(
        str(folder), backend="onnx", device="cpu", model_kwargs={**kwargs, "export": True}
    )
    model.transformers_model.save_pretrained(str(folder))
    model = SentenceTransformer(str(folder), backend="onnx", device="cpu", model_kwargs=kwargs)
    for recipe in ("avx512_vnni", "avx2"):
        export_dynamic_quantized_onnx_model(model, recipe, str(folder))


def openvino(folder: Path, calibration: list[str]) -> None:
    """Write fp32 and static int8.

    `export_static_quantized_openvino_model` insists on a data set from the hub; this does what it
    does, with the same padding, on given texts.
    """
    import nncf
    from optimum.intel.openvino import OVConfig, OVQuantizationConfig, OVQuantizer
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder), backend="openvino", device="cpu", model_kwargs={"export": True}
    )
    model.transformers_model.save_pretrained(str(folder))
    config = OVQuantizationConfig()
    examples = [
        dict(
            model.tokenizer(
                text, padding="max_length", max_length=384, truncation=True, return_tensors="np"
            )
        )
        for text in calibration[: config.num_samples or 300]
    ]
    target, scratch = folder / "openvino", folder / "int8"
    OVQuantizer.from_pretrained(model.transformers_model).quantize(
        nncf.Dataset(examples),
        save_directory=str(scratch),
        ov_config=OVConfig(quantization_config=config),
    )
    for suffix in (".bin", ".xml"):  # the .xml last: it is what tells that the file is whole
        quantized = scratch / "openvino" / f"openvino_model{suffix}"
        quantized.rename(target / f"openvino_model_qint8_quantized{suffix}")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    _folder = Path(sys.argv[2])
    if sys.argv[1] == "onnx":
        onnx(_folder)
    else:
        openvino(_folder, json.loads(Path(sys.argv[3]).read_text("utf-8")))
