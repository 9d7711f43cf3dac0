"""Passages are exact slices that fit, cut at sentences, words, or characters as people see them."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedge import OptionError
from embedge.text import passages
from embedge.text.boundaries import is_cluster_start, sentence_ends, word_ends
from embedge.text.passages import Passage, Tokens, check_limits, split


def words(text: str) -> list[int]:
    """A tokenizer with a token a word."""
    return [found.start() for found in re.finditer(r"\S+", text)]


def characters(text: str) -> list[int]:
    """A tokenizer with a token for each character but white space."""
    return [position for position, character in enumerate(text) if not character.isspace()]


def by(starts: Callable[[str], list[int]]) -> Tokens:
    return Tokens(starts, lambda piece: len(starts(piece)))


def cut(text: str, ends: Sequence[int]) -> list[str]:
    edges = [0, *ends, len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def texts(found: Sequence[Passage]) -> list[str]:
    return [passage.text for passage in found]


@pytest.mark.parametrize(
    "sentences",
    [
        ["He left at 3.5 p.m. and came back! ", '"Really?" ', "she said. ", "Yes..."],
        ["Il est venu\u202f! ", "« Vraiment\u202f? » ", "Oui."],
        ["Er kam um 8 Uhr. ", "„Wirklich?“ ", "Ja."],
        ["你好。", "今天天气很好！", "我们去吧？", "“好的。”", "他说。"],
        ["それは本当ですか？！", "はい。"],
        ["هل أنت بخير؟ ", "نعم. ", "شكرا"],
        ["यह एक वाक्य है। ", "यह दूसरा है।"],
        ["Привет! ", "Как дела? ", "Хорошо."],
        ["한국어 문장입니다. ", "두 번째입니다."],
        ["สวัสดีครับ วันนี้อากาศดี"],
        ["One line\n", "another line\n\n", "a paragraph"],
        ["e.g. this is one sentence. ", "(Here is another.) ", "End"],
    ],
)
def test_sentences(sentences: list[str]) -> None:
    assert cut("".join(sentences), list(sentence_ends("".join(sentences)))) == sentences


def test_words_end_after_their_white_space() -> None:
    assert cut(" a  b\tc ", list(word_ends(" a  b\tc "))) == [" ", "a  ", "b\t", "c "]


@pytest.mark.parametrize(
    "clusters",
    [
        ["e\u0301", "a"],
        ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "x"],
        ["\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7", "\U0001f1ee"],
        ["\U0001f44d\U0001f3fd", "a"],
        ["\u2764\ufe0f", "!"],
        ["\u1100\u1161\u11a8", "\u1100\u1161"],
        ["\uac00\u11a8", "\uac01\u11a8", "\uac00"],
        ["กำ", "ก็", "ดี"],
        ["\r\n", "\n"],
        ["नि", "का"],
    ],
)
def test_characters_as_people_see_them_stay_whole(clusters: list[str]) -> None:
    text = "".join(clusters)
    starts = [i for i in range(1, len(text)) if is_cluster_start(text, i)]
    assert cut(text, starts) == clusters


def test_flags_are_counted_from_where_the_passage_begins() -> None:
    """And not from the beginning of a run of them: that takes time with the square of it."""
    flags = "\U0001f1e9\U0001f1ea" * 3
    assert [is_cluster_start(flags, place, 2) for place in range(3, 6)] == [False, True, False]
    assert [is_cluster_start(flags, place, 3) for place in range(4, 6)] == [False, True]


def test_a_passage_ends_at_the_last_sentence_that_fits() -> None:
    text = "One two three. Four five six. Seven eight nine ten eleven twelve."
    assert list(split(text, by(words), 8)) == [
        Passage("One two three. Four five six. ", 0, 30),
        Passage("Seven eight nine ten eleven twelve.", 30, 65),
    ]


def test_a_long_sentence_ends_at_words_and_a_long_word_at_characters() -> None:
    assert texts(list(split("a b c d e f g h i j", by(words), 8))) == ["a b c d e f g h ", "i j"]
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"  # 5 characters, one that people see
    assert texts(list(split(family * 3, by(characters), 8))) == [family] * 3


def test_overlapping_passages_begin_at_a_sentence_or_a_word() -> None:
    text = "A b c d. E f. G h i j k l."
    assert texts(list(split(text, by(words), 8, 2))) == ["A b c d. E f. ", "E f. G h i j k l."]
    assert texts(list(split("a b c d e f g h i j k", by(words), 8, 3))) == [
        "a b c d e f g h ",
        "f g h i j k",
    ]


@pytest.mark.parametrize("text", ["", "   ", "a"])
def test_a_text_that_fits_is_one_passage(text: str) -> None:
    assert list(split(text, by(words), 8)) == [Passage(text, 0, len(text))]


ALPHABET = "ab .!?\n。คำ\u0301\u200d\U0001f1e9\U0001f44d\U0001f3fd"


@given(
    st.text(ALPHABET, max_size=200),
    st.sampled_from([words, characters]),
    st.integers(8, 12),
    st.integers(0, 4),
    st.sampled_from([20, 2**16]),
)
def test_passages_fit_and_cover_the_text(
    text: str, starts: Callable[[str], list[int]], limit: int, overlap: int, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passages, "_CHUNK_CHARACTERS", chunk)
        found = list(split(text, by(starts), limit, overlap))
    assert [text[p.start : p.end] for p in found] == texts(found)
    assert all(len(starts(passage.text)) <= limit for passage in found)
    assert found[0].start == 0
    assert found[-1].end == len(text)
    for one, other in pairwise(found):
        assert one.start < other.start <= one.end < other.end or (
            overlap == 0 and one.end == other.start
        )
        assert len(starts(text[other.start : one.end])) <= overlap
    if overlap == 0:
        assert "".join(texts(found)) == text


def test_a_chunk_of_the_text_is_tokenized_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "_CHUNK_CHARACTERS", 100)
    longest = 0

    def starts(text: str) -> list[int]:
        nonlocal longest
        longest = max(longest, len(text))
        return words(text)

    text = "word " * 1000
    assert "".join(texts(list(split(text, by(starts), 8)))) == text
    assert longest == 100


@pytest.mark.parametrize(
    ("limit", "overlap", "message"),
    [
        (7, 0, "at least 8 tokens of text in a passage, got 7"),
        (20, 11, "an overlap from 0 to 10 tokens, half of a passage, got 11"),
        (20, -1, "got -1"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limit: int, overlap: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_limits(limit, overlap)
