"""Where a text may be cut: after a sentence, after a word, or between two grapheme clusters.

The rules are those of Unicode's text segmentation (https://www.unicode.org/reports/tr29), reduced
to the properties that `unicodedata` of the standard library knows and a small table of the rest.
They use no dictionary: in scripts without spaces, such as Thai, the ends of words are not known.
"""

import re
import unicodedata
from collections.abc import Iterator

# Sentence terminals by how they end a sentence. A full stop or an ellipsis also ends abbreviations
# and numbers: it needs white space behind it, and no lower-case letter after that (rule SB8).
_AMBIGUOUS = ".\u2024\ufe52\uff0e\u2026"
# Terminals of scripts that put no space behind them.
_WIDE = "\u3002\uff01\uff1f\uff61\ufe12\ufe15\ufe16"
# The others: Latin, Armenian, Arabic, Urdu, Syriac, Devanagari, Tibetan, Burmese, Ethiopic, Khmer.
_SPACED = (
    "!?\u203c\u203d\u2047\u2048\u2049\u0589\u061d\u061e\u061f\u06d4\u0700\u0701\u0702\u0964\u0965"
    "\u0f0d\u104a\u104b\u1362\u1367\u1368\u17d4\u17d5"
)
_CLOSE = "\"'\u2019\u201d\u00bb\u203a)\\]}\u300d\u300f\u3011\u300b\u3009\uff09\uff3d\uff5d"
# German closes with what others open with; French has a space before its closing quotation mark.
_CLOSED = rf"[{_CLOSE}\u2018\u201c]*(?:[ \u00a0\u202f][\u00bb\u203a])?"
# Each alternative begins where a run begins, so that a search takes time linear in the text.
_SENTENCE_END = re.compile(
    rf"[{_WIDE}][{_WIDE}{_AMBIGUOUS}{_SPACED}]*[{_CLOSE}]*\s*"
    rf"|(?<![{_AMBIGUOUS}{_SPACED}])[{_AMBIGUOUS}{_SPACED}]+{_CLOSED}\s+"
    r"|[\n\v\f\r\x85\u2028\u2029]\s*"
)
_CERTAIN = frozenset(_WIDE + _SPACED + "\n\v\f\r\x85\u2028\u2029")
_WORD_END = re.compile(r"\s+")

_JOINER = "\u200d"
# Letters that Unicode counts to the cluster before them although they are not marks.
_SPACING = frozenset("\u0e33\u0eb3\uff9e\uff9f\u200c")


def sentence_ends(text: str) -> Iterator[int]:
    """Yield the positions after each sentence and the white space behind it, in ascending order."""
    for found in _SENTENCE_END.finditer(text):
        end = found.end()
        ambiguous = not (set(found[0]) & _CERTAIN)
        if end < len(text) and not (ambiguous and text[end].islower()):
            yield end


def word_ends(text: str) -> Iterator[int]:
    """Yield the positions after each run of white space, in ascending order."""
    for found in _WORD_END.finditer(text):
        if 0 < found.end() < len(text):
            yield found.end()


def is_cluster_start(text: str, position: int, begin: int = 0) -> bool:
    """Whether a cut before ``position`` splits no grapheme cluster of the text from ``begin`` on.

    Kept together (rules GB3 to GB13): combining marks and variation selectors with their base,
    sequences with a zero-width joiner, emoji with a skin tone, pairs of regional indicators,
    syllables of Hangul that are written in parts, and CR with LF.
    """
    if not 0 < position < len(text):
        return True
    before, after = text[position - 1], text[position]
    if before == "\r" and after == "\n":
        return False
    if before == _JOINER or after == _JOINER or _extends(after):
        return False
    if _is_regional(before) and _is_regional(after):
        return _regionals_before(text, position, begin) % 2 == 0
    return not _continues_syllable(before, after)


def _extends(character: str) -> bool:
    if character < "\u0300":
        return False
    return (
        unicodedata.category(character)[0] == "M"
        or character in _SPACING
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"  # tags, of the flags of regions
    )


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regionals_before(text: str, position: int, begin: int) -> int:
    count = 0
    while count < position - begin and _is_regional(text[position - 1 - count]):
        count += 1
    return count


def _continues_syllable(before: str, after: str) -> bool:
    """Whether two parts of Hangul are of one syllable (rules GB6 to GB8)."""
    return _hangul(after) in _SYLLABLE.get(_hangul(before), "")


# What may follow a leading consonant, a vowel, a trailing consonant, and a whole syllable without
# or with a trailing consonant.
_SYLLABLE = {"L": "LVSU", "V": "VT", "T": "T", "S": "VT", "U": "T"}


def _hangul(character: str) -> str:
    """The kind of a part of Hangul: L, V, T, S (a syllable of L and V), U (of L, V and T)."""
    if "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97c":
        return "L"
    if "\u1160" <= character <= "\u11a7" or "\ud7b0" <= character <= "\ud7c6":
        return "V"
    if "\u11a8" <= character <= "\u11ff" or "\ud7cb" <= character <= "\ud7fb":
        return "T"
    if "\uac00" <= character <= "\ud7a3":
        return "U" if (ord(character) - 0xAC00) % 28 else "S"
    return "-"
