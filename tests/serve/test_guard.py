"""Who is answered over HTTP: no web page, nobody under a foreign name, nobody without the key."""

import pytest

from embedge import OptionError
from embedge.serve.guard import Guard, is_loopback

LOCAL = {"host": "localhost"}


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:80", "[::1]:8000", "10.1.2.3"]
)
def test_localhost_and_addresses_may_be_named(host: str) -> None:
    assert Guard().check("/health", {"host": host}) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80@127.0.0.1",
        "2130706433",  # 127.0.0.1 as one number, which a resolver may take
        "vectors.lan.evil.example",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    refusal = Guard(hosts=["vectors.lan"]).check("/health", {"host": host})
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "host_not_allowed")
    assert "start the server with --allow-host NAME" in refusal.message


def test_a_name_that_was_allowed() -> None:
    assert Guard(hosts=["vectors.lan"]).check("/health", {"host": "Vectors.LAN:8000"}) is None


@pytest.mark.parametrize(
    "header",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:8000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-origin"},
    ],
)
def test_web_pages_are_refused(header: dict[str, str]) -> None:
    refusal = Guard().check("/v1/models", {**LOCAL, **header})
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "web_page")


def test_an_address_that_a_person_typed_into_a_browser() -> None:
    assert Guard().check("/health", {**LOCAL, "sec-fetch-site": "none"}) is None


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer ", "Bearer kez", "key", "Bearer ké"])
def test_without_the_key(given: str | None) -> None:
    headers = LOCAL if given is None else {**LOCAL, "authorization": given}
    refusal = Guard(api_key="key").check("/v1/embeddings", headers)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (401, "invalid_api_key")


def test_with_the_key_and_where_none_is_asked_for() -> None:
    guard = Guard(api_key="key")
    for given in ("Bearer key", "bearer key", "Bearer  key "):
        assert guard.check("/v1/embeddings", {**LOCAL, "authorization": given}) is None
    assert guard.check("/health", LOCAL) is None
    assert Guard().check("/v1/embeddings", LOCAL) is None


@pytest.mark.parametrize("key", ["", "kéy", "a key", " key", "key\n", "\x7f"])
def test_a_key_that_no_header_can_hold(key: str) -> None:
    with pytest.raises(OptionError, match="of visible ASCII characters, without spaces"):
        Guard(api_key=key)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("vectors.lan", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, local: bool) -> None:
    assert is_loopback(host) is local
