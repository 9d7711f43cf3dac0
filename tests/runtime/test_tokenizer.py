"""Token ids, and long texts in pieces and windows. The tiny vocabulary is in tiny.py."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

import embedge.text.tokenizer
from embedge import Encoder
from embedge.errors import ModelError, TextError
from embedge.text.tokenizer import TextTokenizer

from . import tiny
from .conftest import Run
from .tiny import CLS, PART_A, PART_B, PART_C, SEP, UNK, A, B, C


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return TextTokenizer(tiny.TOKENIZER, max_tokens=8)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a b", [A, B]),
        ("", []),
        (" \t\n ", []),
        ("abc cab", [A, PART_B, PART_C, C, PART_A, PART_B]),
        ("A É x", [A, UNK, UNK]),
        ("a\0b", [A, PART_B]),
        ("文a", [UNK, A]),
    ],
)
def test_ids_by_hand(tokenizer: TextTokenizer, text: str, ids: list[int]) -> None:
    assert tokenizer.ids([text]) == [ids]
    assert tokenizer.count([text]) == [len(ids) + 2]


def test_special_tokens_go_around_and_what_does_not_fit_is_cut(tokenizer: TextTokenizer) -> None:
    assert tokenizer.capacity == 6
    assert tokenizer.wrap([A, B]) == [CLS, A, B, SEP]
    assert tokenizer.wrap([]) == [CLS, SEP]
    assert tokenizer.wrap([A] * 6 + [B]) == [CLS, A, A, A, A, A, A, SEP]


def test_truncation_and_padding_of_the_file_are_switched_off() -> None:
    own = tiny.tokenizer()
    own.enable_truncation(3)
    own.enable_padding(length=20)
    assert TextTokenizer(own.to_str(), 8).ids(["a b c a b", "a"]) == [[A, B, C, A, B], [A]]


def test_a_tokenizer_without_special_tokens() -> None:
    own = tiny.tokenizer()
    values = json.loads(own.to_str())
    values["post_processor"] = None
    tokenizer = TextTokenizer(json.dumps(values), 8)
    assert tokenizer.capacity == 8
    assert tokenizer.wrap([A]) == [A]
    assert tokenizer.count(["", "a"]) == [0, 1]


@pytest.mark.parametrize("max_tokens", [1, 2])
def test_max_tokens_must_leave_room_for_a_text(max_tokens: int) -> None:
    with pytest.raises(
        ModelError, match=f"expected max_tokens to leave room for a text, got {max_tokens};"
    ):
        TextTokenizer(tiny.TOKENIZER, max_tokens)


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ("a b c a b c a b", [[A, B, C, A, B, C], [A, B]]),
        # The third word would not fit whole, so the first window ends before it.
        ("abc ab cab", [[A, PART_B, PART_C, A, PART_B], [C, PART_A, PART_B]]),
        # A word longer than a window is cut where the window ends, and the next starts afresh.
        ("a" * 8 + " b", [[A] + [PART_A] * 5, [PART_A, PART_A, B]]),
        ("a b", [[A, B]]),
        ("", [[]]),
        ("abcabc abcabc", [[A, PART_B, PART_C, PART_A, PART_B, PART_C]] * 2),
        ("b " + "a" * 13, [[B], [A] + [PART_A] * 5, [PART_A] * 6, [PART_A]]),
    ],
)
def test_windows_by_hand(tokenizer: TextTokenizer, text: str, windows: list[list[int]]) -> None:
    assert list(tokenizer.windows(text)) == [([], ids) for ids in windows]


def test_windows_lose_and_invent_nothing(tokenizer: TextTokenizer) -> None:
    words = ["a", "abc", "bb", "cacacaca", "b" * 20, "文"]
    for seed in range(50):
        text = " ".join(words[(seed * i * i + i) % len(words)] for i in range(seed))
        runs = [window.ids for window in tokenizer.windows(text)]
        assert sum(runs, []) == tokenizer.ids([text])[0]  # noqa: RUF017  (short lists)
        assert all(len(run) <= tokenizer.capacity for run in runs)


@pytest.fixture
def pieces_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedge.text.tokenizer, "_PIECE_CHARACTERS", 10)


LONG = ["a b c " * 9, "abc\ncab bca  " * 7, "   " * 20 + "a", "ab " * 3 + "c", "文文 " * 12]


@pytest.mark.usefixtures("pieces_of_ten")
@pytest.mark.parametrize("text", LONG)
def test_ids_in_pieces_are_those_of_the_whole_text(tokenizer: TextTokenizer, text: str) -> None:
    whole = Tokenizer.from_str(tiny.TOKENIZER).encode(text, add_special_tokens=False).ids
    assert tokenizer.ids(["b", text, "a"]) == [[B], whole, [A]]
    assert [i for window in tokenizer.windows(text) for i in window.ids] == whole


@pytest.mark.usefixtures("pieces_of_ten")
def test_a_text_without_spaces_is_cut_into_pieces_too(tokenizer: TextTokenizer) -> None:
    assert tokenizer.ids(["文" * 25]) == [[UNK] * 25]


@pytest.mark.usefixtures("pieces_of_ten")
def test_with_a_limit_reading_stops_once_it_is_passed(tokenizer: TextTokenizer) -> None:
    (ids,) = tokenizer.ids(["a " * 1000], limit=6)
    assert 6 < len(ids) <= 12
    assert set(ids) == {A}


@pytest.mark.usefixtures("pieces_of_ten")
def test_a_prompt_is_in_the_first_piece_of_a_long_text(tokenizer: TextTokenizer) -> None:
    (whole,) = tokenizer.ids(["c b " + "a b c " * 9])
    assert tokenizer.ids(["b", "a b c " * 9], prompt="c b ") == [[C, B, B], whole]
    assert tokenizer.count(["b", "a b c " * 9], prompt="c b ") == [5, len(whole) + 2]
    windows = list(tokenizer.windows("a b c " * 9, prompt="c b "))
    assert windows[:2] == [([C, B], [A, B, C, A]), ([C, B], [B, C, A, B])]
    assert [i for window in windows for i in window.ids] == [A, B, C] * 9
    assert {tuple(window.prompt) for window in windows} == {(C, B)}


def test_short_texts_are_tokenized_so_many_characters_at_a_time(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedge.text.tokenizer, "_PIECE_CHARACTERS", 8)
    monkeypatch.setattr(embedge.text.tokenizer, "_BATCH_CHARACTERS", 10)
    batches: list[list[str]] = []
    encode = tokenizer._encode

    def noted(batch: list[str], *rest: Any, **more: Any) -> list[Any]:
        batches.append(batch)
        return encode(batch, *rest, **more)

    monkeypatch.setattr(tokenizer, "_encode", noted)
    texts = ["a b", "b c", "c", "a b c a b c", "a"]
    assert tokenizer.count(texts, prompt="c ") == [5, 5, 4, 9, 4]
    assert batches == [["c a b", "c b c"], ["c c"], ["c a b c"], [" a b c"], ["c a"]]


@pytest.mark.parametrize("size", [10, 2**16])
@pytest.mark.parametrize(
    ("text", "character", "code"),
    [
        ("\ud800", 0, "D800"),
        ("a b \udfff", 4, "DFFF"),
        ("a b c a b c a b \udc80 a", 16, "DC80"),
    ],
)
def test_a_lone_surrogate_is_named(
    tokenizer: TextTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    text: str,
    character: int,
    code: str,
) -> None:
    monkeypatch.setattr(embedge.text.tokenizer, "_PIECE_CHARACTERS", size)
    message = (
        rf"text 7 holds a lone surrogate \(U\+{code}\) at character {character}, "
        r"which is not valid Unicode; read the text with errors='replace'"
    )
    with pytest.raises(TextError, match=message) as caught:
        tokenizer.ids(["a", text], start=6)
    assert caught.value.position == 7
    with pytest.raises(TextError, match=message):
        list(tokenizer.windows(text, 7))
    with pytest.raises(TextError, match=message):
        tokenizer.count(["a", text], start=6)


def words_only() -> Tokenizer:
    """Knows "a" and "b", and has no token for what it does not know."""
    tokenizer = Tokenizer(models.WordLevel({"a": A, "b": B}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_a_tokenizer_that_fails_on_a_text_gives_our_error(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "x.onnx", tiny.model(tokenizer=words_only().to_str()))
    encoder = Encoder(path)
    assert encoder.count_tokens("a b") == 2
    with pytest.raises(ModelError, match=r"tokenizer in the file failed on a text .*export it aga"):
        encoder.encode("c")


def test_ids_agree_with_published_ones(default: Encoder, eval_data: Path) -> None:
    """bert-base-uncased's ids for thirty odd texts, from the tests of transformers.js."""
    published = json.loads((eval_data / "tokenizer_conformance.json").read_text("utf-8"))
    cases = [case for case in published["cases"]["bert-base-uncased"] if "text_pair" not in case]
    assert len(cases) > 25
    tokenizer = default._pipeline.tokenizer
    for case in cases:
        (ids,) = tokenizer.ids([case["text"]])
        assert tokenizer.wrap(ids) == case["ids"], case["case"]
    (ids,) = tokenizer.ids(["a" * 50_000])
    assert tokenizer.wrap(ids) == published["also"]["ids"]


def changed(**parts: Any) -> str:
    """The tiny tokenizer with other parts."""
    return json.dumps({**json.loads(tiny.TOKENIZER), **parts})


def replace_with(content: str, **pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern or {"String": "a"}, "content": content}


def charsmap(replacement: bytes) -> dict[str, Any]:
    trie = bytes(4)
    packed = base64.b64encode(len(trie).to_bytes(4, "little") + trie + replacement + b"\0").decode()
    return {"type": "Precompiled", "precompiled_charsmap": packed}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


@pytest.mark.parametrize(
    ("normalizer", "message"),
    [
        (replace_with("a" * 17), "makes texts at most 16 times as long, got up to 17 times"),
        (replace_with("a" * 16, Regex="a"), "up to 17 times"),
        (sequence(*[replace_with("aa")] * 40), f"up to {2**40} times"),
        (sequence(sequence(replace_with("aaa")), sequence(replace_with("a" * 6))), "up to 18"),
        (charsmap(b"x" * 2000), "up to 32 times"),
        ({"type": "Prepend", "prepend": "x" * 2000}, "up to 32 times"),
        (sequence(*[{"type": "Lowercase"}] * 65), "a normalizer of at most 64 steps, got 65"),
    ],
)
def test_a_normalizer_that_could_fill_the_memory_is_refused(
    normalizer: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=f"cannot be used \\(.*{message}.*export it again"):
        TextTokenizer(changed(normalizer=normalizer), 8)


@pytest.mark.parametrize(
    "normalizer",
    [
        None,
        {"type": "NFKC"},
        sequence({"type": "NFC"}, replace_with(" ", Regex=" {2,}"), replace_with("▁", String=" ")),
        {"type": "Prepend", "prepend": "▁"},
    ],
)
def test_normalizers_like_the_real_ones_are_taken(normalizer: dict[str, Any] | None) -> None:
    assert TextTokenizer(changed(normalizer=normalizer), 8).count(["a"]) == [3]


def test_a_word_that_would_take_minutes_is_refused() -> None:
    model = {**json.loads(tiny.TOKENIZER)["model"], "max_input_chars_per_word": 2**31}
    with pytest.raises(ModelError, match="max_input_chars_per_word of at most 256, got 2147483648"):
        TextTokenizer(changed(model=model), 8)


@pytest.mark.filterwarnings("ignore")
def test_a_panic_inside_the_tokenizers_library_is_our_error() -> None:
    """Its exception is no Exception, and would pass `except Exception` of whoever calls us."""
    post = json.loads(tiny.TOKENIZER)["post_processor"]
    del post["special_tokens"]["[SEP]"]
    with pytest.raises(ModelError, match=r"the tokenizer in the file cannot be used \(.*export"):
        TextTokenizer(changed(post_processor=post), 8)


def test_a_pattern_that_would_search_for_ever_is_our_error() -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
    tokenizer = TextTokenizer(changed(pre_tokenizer={**split, "invert": False}), 8)
    with pytest.raises(ModelError, match="the tokenizer in the file failed on a text"):
        tokenizer.count(["a" * 50 + "!"])


class NoThreads(BaseException):
    """As the panic of the library's Rust code reaches Python."""


def test_where_the_library_gets_no_threads_texts_are_tokenized_in_turn(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fail(batch: list[str], words: bool) -> None:
        tried.append(batch)
        raise NoThreads("The global thread pool has not been initialized.: ThreadPoolBuildError")

    monkeypatch.setattr(embedge.text.tokenizer, "_without_threads", [])
    monkeypatch.setattr(tokenizer, "_encode_batch", fail)
    assert [tokenizer.ids(["a", "b c"]), tokenizer.ids(["b", "c"])] == [[[A], [B, C]], [[B], [C]]]
    assert tried == [["a", "b c"]]


@pytest.mark.skipif(sys.platform != "linux", reason="needs the threads of Linux, with large stacks")
def test_a_system_that_gives_no_threads(python: Run, tiny_file: Path) -> None:
    """Stacks that fit no address space keep the library's threads from starting, not Python's."""
    code = f"""
from embedge import Encoder
encoder = Encoder({str(tiny_file)!r}, threads=1)
print(encoder.encode(["a", "b", "a b c"]).tobytes().hex(), encoder.count_tokens(["a", "b c"]))
"""
    ordinary, without = python(code), python(code, RUST_MIN_STACK=str(2**47))
    assert "thread pool has not been initialized" in without.stderr
    assert (without.returncode, without.stdout) == (0, ordinary.stdout)
