"""`embedge search --explain`: the words that carried a match, in a terminal and on a page."""

import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from embedge.cli.found import Found
from embedge.cli.streams import say
from embedge.cli.terminal import bold, visible
from embedge.corpus.files import forbidden, is_fixed, real_path, remove, write_synced
from embedge.corpus.files import replace as move
from embedge.corpus.vectors import StoredVectors
from embedge.documents import check_linear
from embedge.encoder import Encoder
from embedge.errors import OptionError
from embedge.explain import Share

_CARRIES = 0.5  # of the largest share: from there a word is bold
_NAMED = 5  # words whose shares are printed
_PAGES = (".html", ".htm")
_SPACES = re.compile(r"\s+")
_DIFFERS = 0.01  # in cosine: more than storing vectors as int8 changes

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --mark: 255 176 32; }}
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.3rem; }}
ol {{ padding-left: 1.5rem; }}
li {{ margin: 1rem 0; }}
.text {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
.place, .note {{ opacity: .7; font-size: .85rem; }}
mark {{ color: inherit; border-radius: .2em; padding: .05em 0;
  background: rgb(var(--mark) / calc(var(--share) * 70%)); }}
</style>
</head>
<body>
{sections}
<p class="note">The number with a word is its share of the cosine of the query and the text; the
shares of all words, and of the tokens that belong to none, add up to it. The stronger the color,
the larger.</p>
</body>
</html>
"""


def check_explainable(encoder: Encoder, vectors: StoredVectors | None) -> None:
    """Raise OptionError where matches among vectors, if there are any yet, have no shares."""
    if vectors is not None and not vectors.has_texts:
        raise OptionError(
            "--explain and --html need the texts, and the vectors were stored without them; make "
            "them with embedge embed --with-text, or give the texts to search in place of vectors"
        )
    check_linear(encoder._pipeline)


def explain_found(
    encoder: Encoder, queries: Sequence[str], found: Sequence[Sequence[Found]]
) -> list[list[Found]]:
    """Add the words' shares to every match; `check_explainable` has passed."""
    explained, others = [], 0
    for query, matches in zip(queries, found, strict=True):
        texts = [str(match.text) for match in matches]
        row = []
        for match, explanation in zip(matches, encoder.explain(query, texts), strict=True):
            words = tuple(word for word in explanation.words if word.text)
            others += abs(explanation.score - match.cosine) > _DIFFERS
            fields = {**match.fields, "explained": explanation.score}
            shares = {"words": [asdict(word) for word in words]}
            row.append(replace(match, words=words, fields={**fields, **shares}))
        explained.append(row)
    if others:
        say(
            f"the shares of {others} matches add up to another cosine than their vectors have, "
            "which were made in context or with another prompt or overflow, or stored as binary"
        )
    return explained


def marked(text: str, words: Sequence[Share], mark: Callable[[str, float], str]) -> Iterator[str]:
    """Yield the text piece by piece, each word as ``mark`` gives it from its relative share.

    The relative share is 1 for the largest, and 0 for those that add nothing.
    """
    largest = max((word.share for word in words), default=0.0)
    position = 0
    for word in words:
        if word.start < position:
            continue
        yield mark(text[position : word.start], 0.0)
        yield mark(text[word.start : word.end], max(0.0, word.share) / max(largest, 1e-9))
        position = word.end
    yield mark(text[position:], 0.0)


def bold_words(text: str, words: Sequence[Share]) -> str:
    """The text on one line, the words bold that carried the match, by escape sequences."""

    def mark(piece: str, share: float) -> str:
        shown = visible(_SPACES.sub(" ", piece))
        return bold(shown) if share >= _CARRIES else shown

    return "".join(marked(text, words, mark)).strip()


def strongest(words: Sequence[Share]) -> str:
    """The words with the largest shares, and these, on one line."""
    best = sorted(words, key=lambda word: -word.share)[:_NAMED]
    return ", ".join(f"{word.text} {word.share:.3f}" for word in best if word.share > 0)


def check_page(path: Path, force: bool) -> None:
    """Raise OptionError where a page could not be written, or would overwrite a file unasked."""
    if part := forbidden(path):
        raise OptionError(f"--html {path}: no file can have {part!r} in its name; give another")
    if any(name.suffix.lower() not in _PAGES for name in (path, real_path(path))):
        raise OptionError(
            f"--html {path}: expected a name that ends in {' or '.join(_PAGES)}, so that no other "
            "file is overwritten"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise OptionError(f"--html {path} cannot be written: give a file in a folder that exists")
    if path.exists() and not force:
        raise OptionError(f"--html {path}: the file exists; give another, or --force to replace it")
    if is_fixed(real_path(path)):
        raise OptionError(
            f"--html {path}: the file is read-only; make it writable, or give another"
        )


def write_page(
    path: Path, queries: Sequence[str], found: Sequence[Sequence[Found]], force: bool
) -> None:
    """Write one self-contained page, whole or not at all, with all texts escaped."""
    sections = "\n".join(map(_section, queries, found))
    title = html.escape(queries[0] if len(queries) == 1 else f"{len(queries)} queries")
    page = _PAGE.format(title=title, sections=sections).encode()
    target = real_path(path)
    new = target.with_name(f".{target.name}.new")
    try:
        write_synced(new, lambda stream: stream.write(page), like=target)
        check_page(path, force)
        move(new, target)
    finally:
        remove(new)


def _section(query: str, matches: Sequence[Found]) -> str:
    items = "\n".join(map(_item, matches))
    return f"<h1>{html.escape(query)}</h1>\n<ol>\n{items}\n</ol>"


def _item(match: Found) -> str:
    words = match.words or ()
    text = "".join(marked(str(match.text), words, _mark))
    passage = "" if match.cosine == match.score else f"passage {match.cosine:.4f}"
    parts = [f"{match.score:.4f}", passage, _place(match.fields), strongest(words)]
    line = " · ".join(html.escape(part) for part in parts if part)
    return f'<li><div class="text">{text}</div><div class="place">{line}</div></li>'


def _place(fields: dict[str, Any]) -> str:
    """The id of a match, and where the passage is in its document."""
    if fields.get("passage") is None:
        return str(fields["id"])
    return f"{fields['id']}, characters {fields['start']} to {fields['end']}"


def _mark(piece: str, share: float) -> str:
    escaped = html.escape(piece)
    if share < 0.05:
        return escaped
    return f'<mark style="--share: {share:.2f}">{escaped}</mark>'
