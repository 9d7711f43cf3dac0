"""The prompts of a model: texts that are put in front of every text."""

from collections.abc import Mapping, Sequence

from embedge.errors import OptionError

# Names under which models keep their prompt for queries, and for what is searched.
QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class LiteralPrompt(str):
    """The text of a prompt itself, where the name of one is expected."""

    __slots__ = ()


def prompt_text(prompts: Mapping[str, str], default: str | None, name: str | None) -> str:
    """The text of a prompt, or the default's for None, or "" where there is no default.

    A LiteralPrompt is its own text.

    Raises:
        OptionError: ``name`` is not one of the prompts.
    """
    if isinstance(name, LiteralPrompt):
        return str(name)
    name = default if name is None else name
    if name is None:
        return ""
    if isinstance(name, str) and name in prompts:
        return prompts[name]
    names = ", ".join(map(repr, prompts)) or "none"
    raise OptionError(f"the model has no prompt named {name!r}; its prompts: {names}")


def first_prompt(prompts: Mapping[str, str], names: Sequence[str]) -> str | None:
    """The first of ``names`` that is one of the prompts."""
    return next((name for name in names if name in prompts), None)
