from pathlib import Path

import pytest

from embedge.errors import ExportError
from embedge_export.recipe import PROBES, Recipe

ROOT = Path(__file__).parent.parent.parent


def test_the_default_models_recipe() -> None:
    recipe = Recipe.of(ROOT / "models" / "all-MiniLM-L6-v2")
    assert recipe.name == "all-MiniLM-L6-v2"
    assert recipe.source == "sentence-transformers/all-MiniLM-L6-v2"
    assert recipe.license == "Apache-2.0"
    assert recipe.probes == PROBES
    assert recipe.weights_sha256 is not None
    assert recipe.weights_sha256.startswith("53aa51172d142c89")


def test_a_recipe_by_its_file_and_by_its_folder_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('source = "a/b"\nmax_tokens = 12\nprobes = ["x"]\n')
    assert Recipe.of(tmp_path) == Recipe.of(tmp_path / "recipe.toml")
    assert Recipe.of(tmp_path) == Recipe("a/b", max_tokens=12, probes=("x",))


def test_a_source_is_relative_to_the_folder_of_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "recipe.toml").write_text('source = "weights"\n')
    assert Recipe.of(tmp_path).source == str(tmp_path / "weights")


def test_a_folder_and_a_hub_id(tmp_path: Path) -> None:
    assert Recipe.of(tmp_path).source == str(tmp_path)
    assert Recipe.of("organization/name").source == "organization/name"
    assert Recipe.of("bert-base-uncased").source == "bert-base-uncased"


@pytest.mark.parametrize("path", ["./missing", "/no/such/folder", "missing.toml", "~/model"])
def test_a_missing_path_is_not_taken_for_a_hub_id(path: str) -> None:
    with pytest.raises(ExportError, match=r"source: .*no such recipe or folder"):
        Recipe.of(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('sorce = "a/b"', "unknown key 'sorce'; known keys: source, name"),
        ('name = "x"', "the key 'source' is missing"),
        ('source = "a/b"\nmax_tokens = "many"', "expected max_tokens to be a int, got 'many'"),
        ('source = "a', "not valid TOML"),
    ],
)
def test_a_bad_recipe_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ExportError, match=message):
        Recipe.of(tmp_path)
