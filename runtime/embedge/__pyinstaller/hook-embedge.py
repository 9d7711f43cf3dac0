"""PyInstaller's hook: the default model, license texts, and what a bundle leaves out."""

from PyInstaller import isolated
from PyInstaller.utils.hooks import collect_data_files, copy_metadata


def _default_model() -> str:
    from embedge.modelfile.default import default_model

    return str(default_model())


# The folder is that of an installed package, also where this is built from a checkout.
# Asked in a process of its own: the build need not load onnxruntime.
datas = [(isolated.call(_default_model), "embedge/models"), *collect_data_files("embedge")]
# A program that passes on a library passes on its license; wheels keep it with the metadata.
for _distribution in ("embedge", "numpy", "onnxruntime", "tokenizers"):
    datas += copy_metadata(_distribution)
datas += collect_data_files("onnxruntime", includes=["LICENSE", "ThirdPartyNotices.txt"])

# Loaded by name, and only where they are asked for. A program that wants one of them in its bundle
# imports it itself or is built with `--hidden-import`; these keep embedge from bringing them.
excludedimports = [
    "embedge_export",
    "optimum",
    "pandas",
    "pyarrow",
    "ray",
    "sentence_transformers",
    "torch",
    "transformers",
]
