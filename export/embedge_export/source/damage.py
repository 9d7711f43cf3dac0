"""Which file of a folder is to blame where a library could not load it."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from embedge.errors import ExportError, one_line
from embedge_export.source.kinds import Layout, read_json
from embedge_export.source.weights import weight_files

# JSON objects that libraries read in the folder of a module; they do not name the file that is bad.
_SETTINGS = (
    *("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("generation_config.json", "sentence_*_config.json", "*processor_config.json"),
)


def check_files(found: Layout) -> None:
    """Read the settings and the weights of every module.

    Raises:
        ExportError: names the first file that cannot be read, and says what to do.
    """
    if not (found.transformer / "config.json").is_file():
        raise ExportError(
            "source", f"{found.transformer} holds no config.json; download the model again"
        )
    for folder in dict.fromkeys([found.transformer, *(folder for _, folder in found.modules)]):
        for path in (path for name in _SETTINGS for path in sorted(folder.glob(name))):
            read_json(path, {})
    for path in weight_files(found):
        _check_weights(path)


def _check_weights(file: Path) -> None:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                return
        torch.load(file, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ExportError(
            "source",
            f"{file} is damaged, or a pickle of more than tensors, which is not loaded because it "
            "could run any code; download it again, or save the model as safetensors",
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError) as error:
        raise ExportError(
            "source", f"{file} is damaged or incomplete; download it again ({one_line(error)})"
        ) from error
