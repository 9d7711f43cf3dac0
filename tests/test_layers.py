"""The layers of both packages: imports only point down, and few modules import a heavy library.

A layer is a module or a sub-package. It may import the layers before it in its list, and itself.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"embedge": ROOT / "runtime/embedge", "embedge_export": ROOT / "export/embedge_export"}

LAYERS = {
    "embedge": (
        {"errors"},  # every layer raises our own exceptions
        {"progress", "similarity"},  # plain arithmetic and drawing: no file, text or graph
        {"modelfile"},  # judges hostile bytes, so it must not load onnxruntime or a tokenizer
        {"text"},  # str to token ids: knows limits and prompts, no graph
        {"ort"},  # token ids to vectors: the only layer that knows onnxruntime
        {"pipeline"},  # the steps of encoding, which a server interleaves
        {"streaming"},  # those of one call, over many texts
        {"documents"},  # passages of a document, and their vectors in context
        {"explain"},  # what each token adds to a cosine
        {"loaded"},  # one model file: lifetime and identity
        {"encoder"},  # composes the layers below into the public class
        {"__init__"},  # what `import embedge` gives: no corpus, server, command or framework
        {"corpus"},  # files to rows to vectors to files, with an Encoder
        {"serve", "integrations"},  # programs and frameworks around an Encoder
        {"cli"},  # the command; nothing imports it
        {"__main__", "__pyinstaller"},
    ),
    "embedge_export": (
        {"catalogue"},  # where recipes are
        {"recipe", "graph", "texts"},  # what is to be done, and ONNX graphs: neither knows PyTorch
        {"quantization"},  # graphs to int8 and fp16 graphs
        {"source"},  # the only users of PyTorch
        {"pack"},  # graph and settings to a model file
        {"checks", "steps"},  # whether a file gives its source's vectors
        {"formats"},  # how a file of each format is made
        {"pipeline"},  # the steps in their order
        {"compare", "models", "cli"},
        {"__init__"},
    ),
}
ONLY_IMPORTERS = {  # library: the modules that may import it, so that the rest loads without it
    "onnxruntime": {"embedge.ort.providers", "embedge_export.graph.ir"},
    "tokenizers": {"embedge.text.limits", "embedge.text.tokenizer"},
    "torch": {"embedge_export.source"},
    "transformers": {"embedge_export.source"},
    "optimum": {"embedge_export.source.trace_optimum"},
    "sentence_transformers": {"embedge_export.source"},
    "huggingface_hub": {"embedge_export.source"},
}
RUNTIME_LIBRARIES = {"numpy", "onnxruntime", "tokenizers"}  # the dependencies of the package
# Of extras, by name so that PyInstaller sees them; nothing imports these modules unasked.
EXTRA_LIBRARIES = {
    "embedge.serve.connection": {"uvicorn"},
    "embedge.serve.http": {"starlette"},
    "embedge.serve.run": {"uvicorn"},
}

MODULES = {
    ".".join([package, *path.relative_to(folder).with_suffix("").parts]): path
    for package, folder in PACKAGES.items()
    for path in sorted(folder.rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """Dotted names of all that a module imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rank(package: str, layer: str) -> int:
    """Position of a layer; what the package itself gives (`embedge.Encoder`) is __init__'s."""
    layers = LAYERS[package]
    for position, names in enumerate(layers):
        if layer in names:
            return position
    for path in (PACKAGES[package] / layer, PACKAGES[package] / f"{layer}.py"):
        assert not path.exists(), f"{path} is in no layer"
    return next(position for position, names in enumerate(layers) if "__init__" in names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    package, layer = module.split(".")[:2]
    own = rank(package, layer)
    for imported in imports(MODULES[module]):
        root, _, rest = imported.partition(".")
        assert (package, root) != ("embedge", "embedge_export"), "the runtime imports the exporter"
        if root == package and rest:
            other = rest.split(".")[0]
            assert other == layer or rank(package, other) < own, f"{module} imports {imported}"


RUNTIME = [
    name
    for name in MODULES
    # PyInstaller's hook is run by PyInstaller, never by the runtime.
    if name.startswith("embedge.") and not name.startswith("embedge.__pyinstaller.")
]


@pytest.mark.parametrize("module", RUNTIME)
def test_the_runtime_imports_three_libraries_and_no_other(module: str) -> None:
    allowed = RUNTIME_LIBRARIES | {"embedge"} | sys.stdlib_module_names
    allowed |= EXTRA_LIBRARIES.get(module, set())
    assert {name.split(".")[0] for name in imports(MODULES[module])} <= allowed


@pytest.mark.parametrize("library", ONLY_IMPORTERS)
def test_few_modules_import_a_heavy_library(library: str) -> None:
    for module, path in MODULES.items():
        if any(name.split(".")[0] == library for name in imports(path)):
            allowed = ONLY_IMPORTERS[library]
            assert any(f"{module}.".startswith(f"{name}.") for name in allowed), module


def script_files() -> dict[str, Path]:
    """Python programs and modules of scripts/, most without an ending, by path."""
    files = [path for path in sorted((ROOT / "scripts").rglob("*")) if path.is_file()]
    return {
        path.relative_to(ROOT).as_posix(): path
        for path in files
        if path.suffix in ("", ".py") and "__pycache__" not in path.parts
    }


FILES = MODULES | script_files()
FRAMEWORKS = "embedge.integrations."  # parameters are those of the framework's own methods


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.parametrize("name", FILES)
def test_a_reader_sees_a_module_and_a_function_at_once(name: str) -> None:
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 320
    for node in functions(FILES[name]):
        length = (node.end_lineno or 0) - node.lineno + 1
        assert length <= 40, f"{node.name} has {length} lines"


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith(FRAMEWORKS)])
def test_a_function_has_at_most_seven_parameters(name: str) -> None:
    for node in functions(FILES[name]):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        named = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
        assert len(named) <= 7, f"{node.name} has {len(named)} parameters"


def test_every_layer_exists() -> None:
    for package, layers in LAYERS.items():
        for layer in set().union(*layers):
            folder = PACKAGES[package]
            assert (folder / layer).is_dir() or (folder / f"{layer}.py").is_file(), layer
