"""Where a model lies: an installed package, a folder, a folder of the hub's cache, or the hub."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from embedge.errors import ExportError
from embedge_export.recipe import HUB_CACHE, Recipe

# Other formats of the same weights, which nothing here reads.
_IGNORED = ["onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot", "coreml/*"]


@dataclass(frozen=True)
class Location:
    """A model's folder, and where it came from; unknown parts are empty."""

    folder: Path
    repository: str = ""
    revision: str = ""


def locate(recipe: Recipe) -> Location:
    """Find the folder of the model that a recipe names.

    Raises:
        ExportError: there is no such model, or the hub cannot be reached.
    """
    return _package(recipe) or _folder(recipe) or _hub(recipe)


def _package(recipe: Recipe) -> Location | None:
    if recipe.package is None:
        return None
    package, _, inner = recipe.package.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / inner
    return Location(folder, recipe.source, recipe.revision or "")


def _folder(recipe: Recipe) -> Location | None:
    folder = Path(recipe.source)
    if not folder.is_dir():
        return None
    folder = folder.resolve()
    for root in (folder, *folder.parents[:2]):
        if root.name.startswith(HUB_CACHE):
            return _cached(root, folder, recipe)
    return Location(folder, "", recipe.revision or "")


def _cached(root: Path, folder: Path, recipe: Recipe) -> Location:
    """The snapshot that a folder of the hub's cache (models--org--name) stands for."""
    if folder.parent.parent != root:  # the whole repository: which of its snapshots?
        ref = root / "refs" / (recipe.revision or "main")
        commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else recipe.revision
        snapshots = sorted(path.name for path in (root / "snapshots").glob("*"))
        if commit is None and len(snapshots) == 1:
            commit = snapshots[0]
        if commit not in snapshots:
            raise ExportError(
                "source",
                f"{root} is a folder of the hub's cache that holds the snapshots "
                f"{', '.join(snapshots) or '(none)'}; name one of them (--revision), or its folder",
            )
        folder = root / "snapshots" / str(commit)
    elif recipe.revision not in (None, folder.name):
        raise ExportError(
            "source",
            f"{folder} is the snapshot of one commit, which is not the revision "
            f"{recipe.revision!r}; give {root} for that, or no revision",
        )
    repository = root.name.removeprefix(HUB_CACHE).replace("--", "/", 1)
    return Location(folder, repository, folder.name)


def _hub(recipe: Recipe) -> Location:
    hint = f", or pip install the package of {recipe.package}" if recipe.package else ""
    try:
        snapshot = snapshot_download(
            recipe.source, revision=recipe.revision, ignore_patterns=_IGNORED
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(
            "source",
            f"{recipe.source} could not be fetched from the hub ({reason}); give the folder of a "
            f"downloaded model{hint}",
        ) from error
    # the hub's cache names a snapshot by its commit
    return Location(Path(snapshot), recipe.source, Path(snapshot).name)
