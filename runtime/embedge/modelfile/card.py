"""The model card of a file, as Markdown, from its own metadata."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from embedge.modelfile.file import ModelFile
from embedge.modelfile.settings import dumps

# What some keys of a report mean; the others are self-explanatory.
_FIGURES = {
    "anisotropy": "mean cosine of unrelated texts",
    "probes": "texts compared",
    "spearman": "rank correlation with people's scores, x100",
}
_ALIKE = """\
vectors = encoder.encode(["A man is eating food.", "Someone is having a meal."])
print(encoder.similarity(vectors[0], vectors[1:]))
"""
_FOUND = """\
query = encoder.encode_query("Who is eating?")
documents = encoder.encode_document(["A man is eating food.", "It rains."])
print(encoder.similarity(query, documents))
"""
# What Markdown or HTML may interpret; some characters only where a link or emphasis may begin.
_MARKUP = re.compile(r"""[^\w "'()+,./:;=?%-]|:(?=/)|(?<=www)\.|(?<![^\W_])_|_(?![^\W_])""")


def card(file: ModelFile) -> str:
    """A page in Markdown: what the model is, how it is used, what its export measured.

    The file's strings are escaped: none spans lines or is interpreted as markup, except that some
    renderers of Markdown turn an e-mail address into a link.
    """
    settings = file.settings
    return f"""\
# {_plain(settings.name)}

A sentence transformer in one ONNX file, run by embedge: texts of up to {settings.max_tokens} tokens
become vectors of {settings.dim} components.

{"".join(_table(_properties(file)))}
```python
from embedge import Encoder

encoder = Encoder({file.path.name!a})
{_FOUND if settings.prompts else _ALIKE}```

What its export measured:

{"".join(_table(_measured(file.report)))}"""


def _properties(file: ModelFile) -> dict[str, str]:
    """The properties of the file by name; values are escaped already."""
    settings = file.settings
    properties = {
        "dim": settings.dim,
        "max_tokens": settings.max_tokens,
        "pooling": settings.pooling,
        "normalized": "to length 1" if settings.normalized else "no",
        "quantization": settings.quantization,
        "kept in higher precision": settings.kept,
        "device": settings.device,
        "lowest onnxruntime": settings.min_onnxruntime,
        "prompts": settings.prompts,
        "default_prompt": settings.default_prompt,
        "similarity": settings.similarity,
        "matryoshka_dims": settings.matryoshka_dims,
        **{f"source: {key}": value for key, value in settings.source.items()},
        "license": settings.license,
        "fingerprint": file.fingerprint,
        "size": f"{file.size:,} bytes",
    }
    rows = {key: _plain(value) for key, value in properties.items()}
    for key, own in _object(file.report, "overridden").items():
        rows[key] = f"{rows.get(key, '-')} (overridden: the model itself says {_plain(own)})"
    return rows


def _measured(report: Mapping[str, Any]) -> dict[str, str]:
    """The figures of a report, and the tools that made the file."""
    figures = {
        _FIGURES.get(key, key): _plain(value)
        for key, value in report.items()
        if key not in ("overridden", "tools")
    }
    tools = _object(report, "tools")
    figures["made_with"] = _plain(", ".join(f"{name} {tools[name]}" for name in tools))
    return figures


def printable(value: Any) -> str:
    """A value as text that cannot control a terminal: control characters are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def _table(rows: Mapping[str, str]) -> Iterator[str]:
    """The lines of a table; names are escaped here, values already are."""
    yield "| | |\n|---|---|\n"
    for name, value in rows.items():
        yield f"| {_plain(name.replace('_', ' '))} | {value} |\n"


def _plain(value: Any) -> str:
    """A value as one line of text in which nothing is markup."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} {dumps(item)}" for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        value = ", ".join(map(dumps, value))
    shown = "-" if value in ("", None) else printable(value)
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", shown)


def _object(report: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A JSON object of the report, which may hold anything, or nothing at all."""
    value = report.get(key)
    return value if isinstance(value, Mapping) else {}
