"""Who may ask, and for what: bearer tokens, found by their SHA-256."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

from redis_core.errors import ConfigError
from redis_core.secret import Secret, is_same

if TYPE_CHECKING:
    from redis_core.client import Client
    from redis_core.config import Settings

__all__ = ["GatewayToken", "TokenTable", "follow_tokens", "tokens_from_settings"]

_READ_ONLY = "GATEWAY_READONLY_TOKEN"
_BEARER = b"bearer "


@dataclass(frozen=True, slots=True)
class GatewayToken:
    """One token and what it opens.

    Args:
        token: what a client sends.
        read_only: only commands that read, without KEYS and SCAN; scripts only as EVAL_RO, EVALSHA_RO and FCALL_RO.
        prefix: put before every key and channel, and taken off the replies that name keys. Commands whose keys are not
            known are refused, and so are scripts, which can reach keys that they do not declare.
        trusted_scripts: let a token with a prefix run scripts all the same: they are known to touch declared keys only.
    """

    token: Secret
    read_only: bool = False
    prefix: str = ""
    trusted_scripts: bool = False

    unrestricted: bool = field(init=False)
    """Whether its commands go through as they are."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "unrestricted", not self.read_only and not self.prefix)


class TokenTable:
    """Tokens by digest: a look-up takes the same time however much of a token was guessed.

    Args:
        tokens: at least one.

    Raises:
        ConfigError: there is none, one is empty, or two are the same.
    """

    def __init__(self, tokens: Sequence[GatewayToken]) -> None:
        self._by_digest: dict[bytes, tuple[bytes, GatewayToken]] = {}
        # The same by the whole header as clients write it, so that it is not taken apart for each request.
        self._by_header: dict[bytes, tuple[bytes, GatewayToken]] = {}
        for token in tokens:
            text = token.token.reveal().encode()
            digest = sha256(text).digest()
            if not text or digest in self._by_digest:
                raise ConfigError("GATEWAY_TOKEN", "***", "give every token a text of its own")
            self._by_digest[digest] = digest, token
            digest = sha256(b"Bearer " + text).digest()
            self._by_header[digest] = digest, token
        if not self._by_digest:
            raise ConfigError("GATEWAY_TOKEN", None, "set it: the gateway answers nobody without a token")

    def find(self, presented: bytes) -> GatewayToken | None:
        """The token that has this text."""
        digest = sha256(presented).digest()
        known = self._by_digest.get(digest)
        if known is not None and is_same(known[0], digest):
            return known[1]
        return None

    def bearer(self, authorization: bytes) -> GatewayToken | None:
        """The token of an `Authorization` header's value."""
        digest = sha256(authorization).digest()
        known = self._by_header.get(digest)
        if known is not None and is_same(known[0], digest):
            return known[1]
        if authorization[:7].lower() != _BEARER:
            return None
        return self.find(authorization[7:].strip())


def tokens_from_settings(settings: Settings) -> list[GatewayToken]:
    """The tokens of `GATEWAY_TOKEN` and `GATEWAY_READONLY_TOKEN`, as far as they are set; each holds one, or several with commas between.

    Raises:
        ConfigError: one of several is empty.
    """
    return _tokens_of({"GATEWAY_TOKEN": settings.gateway_token, _READ_ONLY: settings.gateway_readonly_token})


def follow_tokens(client: Client, accept: Callable[[Sequence[GatewayToken]], None]) -> None:
    """Let a gateway accept the tokens that its client's settings name, as the client's watch replaces them.

    Args:
        client: its settings name the tokens, or where they are kept.
        accept: the gateway's.
    """
    if client.secrets is None:
        return
    texts = {
        "GATEWAY_TOKEN": client.settings.gateway_token,
        _READ_ONLY: client.settings.gateway_readonly_token,
    }

    def replace(variable: str, text: Secret) -> None:
        accept(_tokens_of({**texts, variable: text}))
        texts[variable] = text

    for variable in texts:
        client.secrets.on_change(variable, partial(replace, variable))


def _tokens_of(texts: Mapping[str, Secret | None]) -> list[GatewayToken]:
    tokens: list[GatewayToken] = []
    for variable, text in texts.items():
        for token in text.reveal().split(",") if text else ():
            if not token.strip():
                raise ConfigError(
                    variable, "***", "give each of its tokens a text, with one comma between two"
                )
            tokens.append(GatewayToken(Secret(token.strip()), read_only=variable == _READ_ONLY))
    return tokens
