"""Which requests are accepted: none of web pages, under foreign host names, or without the key.

A page in a browser on this machine can reach a server on loopback. It sends an Origin, or says in
Sec-Fetch-Site that it comes from elsewhere. A page whose name was pointed at 127.0.0.1 (DNS
rebinding) sends that name as Host; an address as Host is no name, so it cannot have been pointed.
"""

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from embedge.errors import OptionError

OPEN_PATHS = ("/health",)  # for health checks of a server, without its key


@dataclass(frozen=True)
class Refusal:
    """An HTTP status and why."""

    status: int
    message: str
    code: str


@dataclass(frozen=True)
class Guard:
    """The checks of every request.

    Attributes:
        hosts: names, besides localhost and addresses, by which clients may call this server.
        api_key: what `Authorization: Bearer` has to hold; None asks for nothing.

    Raises:
        OptionError: the key is one that no header can hold as it is.
    """

    hosts: Collection[str] = ()
    api_key: str | None = None

    def __post_init__(self) -> None:
        key = self.api_key
        if key is not None and not (key and all("!" <= letter <= "~" for letter in key)):
            raise OptionError(
                "expected an API key of visible ASCII characters, without spaces: HTTP headers "
                "carry no others unchanged; choose another key"
            )

    def check(self, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request is refused, or None; names of ``headers`` are in lower case."""
        host = _host(headers.get("host", ""))
        if not (host == "localhost" or _is_address(host) or host in self.hosts):
            return Refusal(
                403,
                f"expected localhost or an address as Host, got {host[:200]!r}; start the server "
                "with --allow-host NAME if clients call it by a name",
                "host_not_allowed",
            )
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            return Refusal(
                403, "web pages may not use this server; call it from a program", "web_page"
            )
        if self.api_key is not None and path not in OPEN_PATHS:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(key.strip().encode("utf-8"), self.api_key.encode("utf-8"))
            if scheme.lower() != "bearer" or not same:
                return Refusal(
                    401,
                    "expected the server's API key in 'Authorization: Bearer KEY'",
                    "invalid_api_key",
                )
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at ``host``."""
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _host(header: str) -> str:
    """The name in a Host header, without port and brackets, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
