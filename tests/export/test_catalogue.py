"""The recipes that ship with embedge, and the command that lists them."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from embedge.cli.main import main
from embedge.errors import ExportError
from embedge_export import catalogue, export
from embedge_export.graph.head import POOLING
from embedge_export.recipe import Recipe

ROOT = Path(__file__).parent.parent.parent
NAMES = list(catalogue.recipes())
# An export of its published weights was measured here; of no other model may that be said.
REAL = {"all-MiniLM-L6-v2", "all-mpnet-base-v2"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_a_user_must_know(name: str) -> None:
    recipe = Recipe.of(name)
    assert recipe.title == name
    assert recipe.source.partition("/")[2] == name
    assert recipe.dim is not None
    assert recipe.languages
    assert (recipe.verified == "real weights") == (name in REAL)
    assert recipe.pooling is None or recipe.pooling in POOLING
    assert all(dim < recipe.dim for dim in recipe.matryoshka_dims)
    assert recipe.prompts is None or {"query", "document"} == set(recipe.prompts)
    assert recipe.license or recipe.note
    text = catalogue.recipes()[name].read_text(encoding="utf-8")
    assert "https://" in text or "PyPI" in text, "a recipe names the source of its facts"


def test_what_people_use_most_is_there() -> None:
    assert len(NAMES) == 20
    assert {"bge-small-en-v1.5", "e5-small-v2", "gte-base", "embeddinggemma-300m"} < set(NAMES)


def test_a_recipe_is_found_by_name_in_any_case(tmp_path: Path) -> None:
    recipe = Recipe.of("BGE-small-en-v1.5")
    assert recipe.source == "BAAI/bge-small-en-v1.5"
    assert recipe.prompts == {
        "query": "Represent this sentence for searching relevant passages: ",
        "document": "",
    }
    assert Recipe.of("bge-small-en-v1.6") == Recipe("bge-small-en-v1.6")  # a hub id, then


def test_the_wheel_has_every_recipe() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    wanted = {f"models/{name}/recipe.toml": f"embedge_export/models/{name}.toml" for name in NAMES}
    assert {key: value for key, value in included.items() if key in wanted} == wanted


def test_recipes_in_the_wheel_go_before_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.toml").write_text('source = "me/mine"\n')
    monkeypatch.setattr(catalogue, "files", lambda package: tmp_path)
    assert Recipe.of("mine").source == "me/mine"
    assert list(catalogue.recipes()) == ["mine"]


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["name", "dim", "max_tokens", "languages", "license", "verified"]
    assert [line.split()[0] for line in lines] == NAMES
    (line,) = [line for line in lines if line.startswith("bge-m3 ")]
    assert line.split() == ["bge-m3", "1024", "8192", "multilingual", "MIT", "not", "exported"]


def test_the_command_gives_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["embeddinggemma-300m"]["matryoshka_dims"] == [512, 256, 128]
    assert rows["multi-qa-MiniLM-L6-cos-v1"]["license"] is None


def test_a_model_of_another_dim_than_its_recipes_is_refused(
    sentence_folder: Path, tmp_path: Path
) -> None:
    recipe = replace(Recipe(str(sentence_folder)), dim=32)
    with pytest.raises(ExportError, match="the recipe expects 32 components, the model has 24"):
        export(recipe, tmp_path / "m.onnx", format="fp32")


def test_a_recipe_cannot_claim_what_is_no_word_for_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('source = "a/b"\nverified = "certainly"\n')
    with pytest.raises(ExportError, match="expected verified to be one of 'real weights', 'arch"):
        Recipe.of(tmp_path)
