"""What to export: a frozen value read from a recipe.toml, or made of a folder or a hub id."""

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from embedge.errors import ExportError
from embedge_export import catalogue

Verified = Literal["real weights", "architecture", "not exported"]
_LISTS = ("probes", "languages", "matryoshka_dims")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
HUB_CACHE = "models--"  # how the hub's cache names the folder of a repository

# Short and long texts, and some that tokenizers get wrong.
PROBES = (
    "A man is eating food.",
    "How do I reset a forgotten password?",
    "def area(radius: float) -> float: return math.pi * radius ** 2",
    "ORDER #48213-B SHIPPED 2024-02-29, TOTAL $1,204.50 (INCL. 19% VAT)",
    "Die Straßenbahn fährt über die Brücke; à bientôt, señor! 東京は今日も雨です。 Привет 🙂",
    "",
    # A final sigma, which is lowercased by its place in the word; a character beyond the BMP.
    "Ο ΟΔΥΣΣΕΥΣ ΕΦΥΓΕ ΑΠΟ ΤΗΝ ΤΡΟΙΑ",
    "𠮷野家で牛丼を食べる",
    "When the first explorers reached the valley they found a river that ran in both directions: "
    "towards the sea while the snow melted, and back towards the lake when the tide was high. "
    "They camped on a gravel bank, measured the current every hour, and wrote down what they saw. "
    "By the end of the second week they had learned to read the colour of the water, which was "
    "grey before a change and green after it, and could tell the fishermen when to set their nets.",
)


@dataclass(frozen=True)
class Recipe:
    """What to export and what to say about it. Whatever is None comes from the model itself.

    Attributes:
        source: a sentence-transformers folder, a transformers folder, or a hub id.
        name: the model's name, for people; by default the last part of ``source``.
        revision: the hub's commit, tag or branch.
        package: "package/folder" of an installed Python package that carries the same weights;
            tried before the hub, so that an export needs no network.
        weights_sha256: SHA-256 that the weights file must have.
        license: SPDX identifier of the weights' license.
        max_tokens: longest input in tokens, special tokens included.
        pooling: a pooling mode instead of the model's own.
        prompts: prompts by name instead of the model's own.
        probes: texts that the file's self-test encodes.
        dim: components that the model should have.
        languages: codes of the languages that it was trained for, or "multilingual".
        matryoshka_dims: dims that it was trained to be truncated to, where its files do not say.
        verified: what an export of it was verified on here: "real weights", "architecture" (a
            small model of the same kind), or "not exported".
        note: what else is worth knowing before an export.
    """

    source: str
    name: str | None = None
    revision: str | None = None
    package: str | None = None
    weights_sha256: str | None = None
    license: str | None = None
    max_tokens: int | None = None
    pooling: str | None = None
    prompts: dict[str, str] | None = None
    probes: tuple[str, ...] = PROBES
    dim: int | None = None
    languages: tuple[str, ...] = ()
    matryoshka_dims: tuple[int, ...] = ()
    verified: Verified | None = None
    note: str | None = None

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read a recipe.toml; a relative ``source`` that exists is relative to the recipe.

        Raises:
            ExportError: the file is not a recipe; says which key is wrong and which there are.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ExportError("recipe", f"{path} is not valid TOML: {error}") from error
        kinds: dict[str, type] = {f.name: str for f in fields(cls)}
        kinds |= {"max_tokens": int, "dim": int, "prompts": dict} | dict.fromkeys(_LISTS, list)
        for key, value in values.items():
            if key not in kinds:
                known = ", ".join(kinds)
                raise ExportError("recipe", f"{path}: unknown key {key!r}; known keys: {known}")
            if not isinstance(value, kinds[key]):
                kind = kinds[key].__name__
                raise ExportError("recipe", f"{path}: expected {key} to be a {kind}, got {value!r}")
        if values.get("verified") not in (None, *get_args(Verified)):
            known = ", ".join(map(repr, get_args(Verified)))
            raise ExportError("recipe", f"{path}: expected verified to be one of {known}")
        if "source" not in values:
            raise ExportError("recipe", f"{path}: the key 'source' is missing")
        return cls(**_localized(values, path.parent))

    @classmethod
    def of(cls, source: "str | Path | Recipe") -> "Recipe":
        """A recipe from a recipe, a recipe.toml, a folder, a name in the catalogue or a hub id.

        Raises:
            ExportError: a path does not exist, or a recipe cannot be read.
        """
        if isinstance(source, Recipe):
            return source
        path = Path(source)
        if path.is_file():
            if path.suffix == ".toml":
                return cls.read(path)
            raise ExportError(
                "source", f"{path} is a file; expected a recipe.toml, or the folder of a model"
            )
        if (path / "recipe.toml").is_file():
            return cls.read(path / "recipe.toml")
        text = str(source)
        if text and path.is_dir():
            return cls(str(path))
        listed = catalogue.find(text)
        if listed is not None:
            return cls.read(listed)
        if not _HUB_ID.fullmatch(text) or path.suffix == ".toml":
            raise ExportError(
                "source",
                f"{text or repr(text)}: there is no such recipe or folder, and it cannot be a hub "
                "id, which is 'organization/name'",
            )
        return cls(text)

    @property
    def title(self) -> str:
        """The model's name: the recipe's, or the last part of the source."""
        if self.name is not None:
            return self.name
        path = Path(self.source)
        if not path.is_dir():
            return path.name
        path = path.resolve()  # "." has no name
        for place in (path, *path.parents[:2]):
            if place.name.startswith(HUB_CACHE):  # models--organization--name/snapshots/COMMIT
                return place.name.rpartition("--")[2]
        return path.name


def _localized(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    values |= {key: tuple(values[key]) for key in _LISTS if key in values}
    local = folder / values["source"]
    if local.is_dir():
        values["source"] = str(local)
    return values
