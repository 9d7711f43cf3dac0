"""The house's layers: imports only point down, and each heavy library has one door."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each module may import those before it, never those after it.
RUNTIME = (
    "errors", "beside", "protobuf", "operators", "wire", "weights", "settings", "modelfile", "card",
    "texts", "normalizing", "tokenizer", "batching", "progress", "similarity", "overflow",
    "default", "cpus", "providers", "forking", "spread", "session", "verify", "loading", "encoder",
    "survey", "sentence_transformers", "__init__", "cli", "__main__", "ray",
)  # fmt: skip
EXPORT = (
    "recipe", "head", "parallel", "serialize", "onnxgraph", "attention", "graph", "calibrate",
    "rounding", "quantize", "portable", "half", "evaluate", "describe", "source", "trace", "pack",
    "verify", "pipeline", "cli", "compare", "__init__",
)  # fmt: skip
CORPUS = (  # between the runtime's encoder and its cli
    "rows", "arrow", "readers", "inputs", "layout", "work", "bar", "encoding", "output", "job",
    "vectors", "search", "cli", "__init__",
)  # fmt: skip

STANDARD_AND_OURS = {"embedge", "embedge_export"}
RUNTIME_LIBRARIES = {"numpy", "onnxruntime", "tokenizers"}
DOORS = {  # library: the modules that may import it
    "onnxruntime": {"providers", "onnxgraph"},
    "tokenizers": {"normalizing", "tokenizer"},
    "torch": {"describe"},
    "transformers": set(),
    "optimum": {"trace"},
    "sentence_transformers": {"describe", "source"},
    "huggingface_hub": {"source"},
}


def imports(path: Path) -> set[str]:
    """Dotted names of all that a module imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules(package: str) -> dict[str, Path]:
    return {path.stem: path for path in (ROOT / package).glob("*.py")}


RUNTIME_MODULES = modules("runtime/embedge")
EXPORT_MODULES = modules("export/embedge_export")
CORPUS_MODULES = modules("runtime/embedge/corpus")


def test_every_module_has_its_place_in_the_order() -> None:
    assert set(RUNTIME_MODULES) == set(RUNTIME)
    assert set(EXPORT_MODULES) == set(EXPORT)
    assert set(CORPUS_MODULES) == set(CORPUS)


@pytest.mark.parametrize(
    ("package", "order", "name"),
    [("embedge", RUNTIME, name) for name in RUNTIME]
    + [("embedge_export", EXPORT, name) for name in EXPORT],
)
def test_imports_point_down(package: str, order: tuple[str, ...], name: str) -> None:
    path = (RUNTIME_MODULES if package == "embedge" else EXPORT_MODULES)[name]
    above = set(order[order.index(name) :])
    if (package, name) == ("embedge_export", "__init__"):
        above = set()
    for imported in imports(path):
        parts = imported.split(".")
        if parts[0] == package and len(parts) > 1:
            assert parts[1] not in above, f"{name} imports {imported}, which is above it"
        if package == "embedge":
            assert parts[0] != "embedge_export", f"the runtime's {name} imports the exporter"


@pytest.mark.parametrize("name", CORPUS)
def test_imports_of_the_corpus_point_down(name: str) -> None:
    above = {f"embedge.corpus.{module}" for module in CORPUS[CORPUS.index(name) :]}
    above |= {"embedge_export", "embedge.cli", "embedge.__main__"}
    found = imports(CORPUS_MODULES[name])
    assert not found & above, f"the corpus's {name} imports what is above it"


@pytest.mark.parametrize("name", [name for name in RUNTIME if name not in ("cli", "ray")])
def test_only_the_command_and_ray_import_the_corpus(name: str) -> None:
    assert "embedge.corpus" not in imports(RUNTIME_MODULES[name])


@pytest.mark.parametrize(
    "path", [*RUNTIME_MODULES.values(), *CORPUS_MODULES.values()], ids=lambda path: path.stem
)
def test_the_runtime_imports_three_libraries_and_no_other(path: Path) -> None:
    import sys

    for imported in imports(path):
        library = imported.split(".")[0]
        assert (
            library in RUNTIME_LIBRARIES | STANDARD_AND_OURS or library in sys.stdlib_module_names
        ), f"{path.name} imports {imported}"


@pytest.mark.parametrize("library", DOORS)
def test_each_library_has_one_door(library: str) -> None:
    users = {
        name
        for name, path in [
            *RUNTIME_MODULES.items(),
            *CORPUS_MODULES.items(),
            *EXPORT_MODULES.items(),
        ]
        if any(imported.split(".")[0] == library for imported in imports(path))
    }
    assert users <= DOORS[library]


@pytest.mark.parametrize(
    "path",
    [*RUNTIME_MODULES.values(), *CORPUS_MODULES.values(), *EXPORT_MODULES.values()],
    ids=str,
)
def test_no_module_outgrows_a_reader(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320
