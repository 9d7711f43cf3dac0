"""The recipes that ship with embedge: in the wheel, or in a checkout of the source."""

from importlib.resources import files
from pathlib import Path


def recipes() -> dict[str, Path]:
    """The path of each recipe by the name of its model, sorted by name."""
    installed = Path(str(files("embedge_export"))) / "models"
    if installed.is_dir():
        found = {path.stem: path for path in installed.glob("*.toml")}
    else:
        checkout = Path(__file__).resolve().parents[2] / "models"
        found = {path.parent.name: path for path in checkout.glob("*/recipe.toml")}
    return {name: found[name] for name in sorted(found, key=str.lower)}


def find(name: str) -> Path | None:
    """The recipe of a model by its name, in any case; None where there is none."""
    return {key.lower(): path for key, path in recipes().items()}.get(name.lower())
