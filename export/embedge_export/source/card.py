"""The license that a model card names."""

import codecs
import re
from pathlib import Path
from typing import Any

import yaml

UNKNOWN = "unknown"
# What the text of a card calls a license, where its front matter names none: SPDX identifier.
_NAMES = (
    (r"apache[- ]?(license)?,?[- ]*(version )?2(\.0)?", "apache-2.0"),
    (r"cc[- ]by[- ]nc[- ]sa[- ]4(\.0)?", "cc-by-nc-sa-4.0"),
    (r"cc[- ]by[- ]nc[- ]4(\.0)?", "cc-by-nc-4.0"),
    (r"cc[- ]by[- ]sa[- ]4(\.0)?", "cc-by-sa-4.0"),
    (r"cc[- ]by[- ]4(\.0)?", "cc-by-4.0"),
    (r"\bmit\b", "mit"),
    (r"bsd[- ]3", "bsd-3-clause"),
)
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # else it is UTF-8
_NO_VALUE = ("", "null", "~")
_LONGEST = 200  # characters: what is longer is no name
_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.S | re.M)
_SECTION = re.compile(r"^#+[ \t]*licen[sc]e[^\n]*\n(.*?)(?=^#|\Z)", re.S | re.M | re.I)
_LINE = re.compile(r"^[ \t>*_-]*licen[sc]e[*_ \t]*[:=|][^\n]*", re.M | re.I)


def license_of(folder: Path) -> str:
    """The license that the card in a folder names: its front matter first, then its text.

    Several are joined by ", ". "unknown" where there is no card, or it names none that is known.
    """
    card = folder / "README.md"
    if not card.is_file():
        return UNKNOWN
    text = _decoded(card.read_bytes())
    front = _FRONT_MATTER.match(text)
    named = _named(front[1]) if front else ""
    return named or _in_text(text[front.end() :] if front else text)


def _named(front_matter: str) -> str:
    try:  # BaseLoader: every value is text, so that no odd date elsewhere is an error
        values: Any = yaml.load(front_matter, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        values = {"license": _first_line(front_matter)}
    if not isinstance(values, dict):
        return ""
    found, other = values.get("license"), values.get("license_name")
    names = filter(None, map(_name, found if isinstance(found, list) else [found]))
    return ", ".join((_name(other) if name == "other" else "") or name for name in names)


def _name(value: object) -> str:
    """A license's name in one line; nothing where a value is none."""
    words = " ".join(value.split()) if isinstance(value, str) else ""
    name = "".join(filter(str.isprintable, words))[:_LONGEST]  # no controls, no lone surrogates
    return "" if name.lower() in _NO_VALUE else name


def _decoded(card: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if card.startswith(mark):
            return card.decode(encoding, errors="replace")
    return card.decode("utf-8", errors="replace")


def _first_line(front_matter: str) -> str:
    """The license of front matter that is not valid YAML as a whole."""
    line = re.search(r"^license:[ \t]*([^#\r\n]*)", front_matter, re.M)
    return line[1].strip().strip("'\"") if line else ""


def _in_text(text: str) -> str:
    places = [found[0] for pattern in (_LINE, _SECTION) for found in pattern.finditer(text)]
    for place in places:
        for pattern, name in _NAMES:
            if re.search(pattern, place, re.I):
                return name
    return UNKNOWN
