"""The hooks for PyInstaller, run without it; scripts/check_bundles builds real bundles."""

import runpy
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from embedge.__pyinstaller import get_hook_dirs
from embedge.cli.commands import COMMANDS
from embedge.modelfile.default import default_model


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of hooks, with stand-ins for what they take from PyInstaller."""
    isolated = ModuleType("PyInstaller.isolated")
    isolated.call = lambda function: function()  # type: ignore[attr-defined]
    helpers = ModuleType("PyInstaller.utils.hooks")
    helpers.__dict__.update(
        collect_data_files=lambda package, includes=(): [(package, name) for name in includes],
        copy_metadata=lambda name: [("metadata", name)],
        collect_submodules=submodules,
        collect_dynamic_libs=lambda package: [("libraries", package)],
    )
    package = ModuleType("PyInstaller")
    package.isolated = isolated  # type: ignore[attr-defined]
    for module in (package, isolated, helpers, ModuleType("PyInstaller.utils")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (folder,) = get_hook_dirs()
    return Path(folder)


def submodules(package: str) -> list[str]:
    import embedge

    folder = Path(embedge.__path__[0], *package.split(".")[1:])
    return [f"{package}.{path.stem}" for path in folder.glob("*.py")]


def run(hooks: Path, module: str) -> dict[str, Any]:
    return runpy.run_path(str(hooks / f"hook-{module}.py"))


def test_the_default_model_and_all_licenses_are_carried(hooks: Path) -> None:
    datas = run(hooks, "embedge")["datas"]
    assert (str(default_model()), "embedge/models") in datas
    for distribution in ("embedge", "numpy", "onnxruntime", "tokenizers"):
        assert ("metadata", distribution) in datas
    assert ("onnxruntime", "LICENSE") in datas


def test_what_the_runtime_loads_by_name_is_left_out(hooks: Path) -> None:
    excluded = run(hooks, "embedge")["excludedimports"]
    assert {"embedge_export", "pyarrow", "ray", "sentence_transformers", "torch"} <= set(excluded)


def test_onnxruntime_brings_its_providers_and_no_pytorch(hooks: Path) -> None:
    hook = run(hooks, "onnxruntime")
    assert hook["binaries"] == [("libraries", "onnxruntime")]
    assert hook["excludedimports"] == ["onnxruntime.transformers.machine_info"]


def test_the_commands_own_modules_are_carried(hooks: Path) -> None:
    carried = run(hooks, "embedge.cli")["hiddenimports"]
    assert "embedge.cli.main" in carried
    for command in COMMANDS:
        assert command.module in carried or command.module.startswith("embedge_export.")


def test_pyinstaller_finds_the_hooks_of_an_installed_package() -> None:
    found = entry_points(group="pyinstaller40", name="hook-dirs")
    ours = [entry for entry in found if entry.value.startswith("embedge.")]
    if not ours:
        pytest.skip("embedge is not installed here: pip install . to run this test")
    assert [entry.load()() for entry in ours] == [get_hook_dirs()] * len(ours)
