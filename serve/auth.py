"""Who is asking: API keys, and the one case in which none is needed. Knows nothing of the web framework.

A revoked key stops working within about two seconds. While the ledger does not answer, the keys last read go on
working for RAG_KEY_CACHE_S, new ones do not; after that nobody is let in.
"""

from __future__ import annotations

import contextlib
import hmac
import time
from dataclasses import dataclass

from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.ledger import Ledger
from rag_platform.ledger.keys import KEY_PREFIX, SCOPES, ApiKey, KeyLimits, Scope, hash_secret
from rag_platform.records import DEFAULT_TENANT, Principal
from rag_platform.settings import Settings
from serve.key_reader import KeyReader, Snapshot
from serve.origins import host_allowed, is_loopback, origin_allowed

CREATE_A_KEY = "rag keys create --tenant TENANT --group GROUP"
MAX_SECRET_CHARS = 200


class Unauthenticated(Exception):
    """No key, or none that works. The message is for the caller."""


class Forbidden(Exception):
    """Known, but not allowed to do this. The message is for the caller."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request, and what they may do. ``key_id`` is None where no key is needed."""

    principal: Principal
    key_id: str | None
    scopes: frozenset[Scope]
    limits: KeyLimits

    def require(self, scope: Scope) -> None:
        """
        Raises:
            Forbidden: the key lacks this scope.
        """
        if scope not in self.scopes:
            raise Forbidden(f"this API key lacks the scope {scope!r}")


OPEN_CALLER = Caller(Principal(DEFAULT_TENANT), None, frozenset(SCOPES), KeyLimits())
"""Whoever reaches a loopback port while no key was ever made: reads what is public in the default tenant."""


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    secret_hash: str
    expires_at: float | None
    revoked: bool


class Authenticator:
    """Turns credentials into a ``Caller``. Begins to read keys when first asked; close it after use.

    Args:
        bound_host: address that the server listens on. None: not known, and then a key is always needed.
        refresh_s: seconds between two looks at the keys.
    """

    def __init__(
        self, ledger: Ledger, settings: Settings, *, bound_host: str | None = None, refresh_s: float = 2.0
    ) -> None:
        self._keys = KeyReader(ledger, _known, refresh_s=refresh_s, max_age_s=settings.key_cache_s)
        self._bound_host = bound_host
        self._may_be_open = bound_host is not None and is_loopback(bound_host)

    def start(self) -> None:
        """Begin to read keys. A no-op when started or closed."""
        self._keys.start()

    def close(self) -> None:
        """Stop reading keys."""
        self._keys.close()

    async def caller(
        self, authorization: str | None, *, api_key: str | None = None, host: str | None, origin: str | None
    ) -> Caller:
        """Return who sends these headers: ``Authorization`` (Bearer), ``X-API-Key``, ``Host`` and ``Origin``.

        Raises:
            Unauthenticated: a key is needed and this is none that works.
            Forbidden: no key is needed, but a foreign web page is asking.
            DependencyError: the ledger has not answered for too long to know.
        """
        secret = _secret(authorization, api_key)
        snapshot = await self._keys.current()
        known = _find(snapshot, secret)
        if known is None and _must_be_known(snapshot, secret):
            snapshot = await self._keys.renewed()
            known = _find(snapshot, secret)
        if known is None:
            return self._without_key(snapshot, secret, host, origin)
        if known.revoked:
            raise Unauthenticated("this API key was revoked")
        if known.expires_at is not None and known.expires_at <= time.time():
            raise Unauthenticated("this API key has expired")
        return known.caller

    def _without_key(
        self, snapshot: Snapshot[_Known], secret: str | None, host: str | None, origin: str | None
    ) -> Caller:
        if _must_be_known(snapshot, secret):
            raise Unauthenticated("this API key is not known")
        if snapshot.by_hash:
            raise Unauthenticated("an API key is needed: send the header `Authorization: Bearer rag_…`")
        if not self._may_be_open:
            raise Unauthenticated(f"an API key is needed and there is none yet: run `{CREATE_A_KEY}` on the server")
        if not host_allowed(host, self._bound_host) or not origin_allowed(origin, host):
            raise Forbidden("without API keys only this machine's own pages and programs may ask")
        return OPEN_CALLER


def check_listen(host: str, ledger: Ledger) -> None:
    """Refuse to listen beyond this machine while anybody could ask.

    A ledger that does not answer is no reason not to start: until it does, nobody is let in.

    Raises:
        ConfigurationError: ``host`` is not loopback and no API key was ever made.
    """
    if is_loopback(host):
        return
    with contextlib.suppress(DependencyError):
        if not ledger.keys.exist():
            raise ConfigurationError(
                f"to listen on {host} an API key is needed: run `{CREATE_A_KEY}` first, or use --host 127.0.0.1"
            )


def _secret(authorization: str | None, api_key: str | None) -> str | None:
    """Return the secret that was sent, if any.

    Raises:
        Unauthenticated: another scheme than Bearer.
    """
    if authorization is None:
        return api_key or None
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("send the API key as `Authorization: Bearer rag_…`")
    return rest.strip() or None


def _must_be_known(snapshot: Snapshot[_Known], secret: str | None) -> bool:
    """Whether this credential has to be one of ours. Before the first key is made, what OpenAI's clients send
    because they must send something is no credential."""
    return secret is not None and (bool(snapshot.by_hash) or secret.startswith(KEY_PREFIX))


def _find(snapshot: Snapshot[_Known], secret: str | None) -> _Known | None:
    if secret is None or len(secret) > MAX_SECRET_CHARS:
        return None
    hashed = hash_secret(secret)
    known = snapshot.by_hash.get(hashed)
    # The look-up by hash tells nothing about secrets through its time; the comparison says so explicitly.
    return known if known is not None and hmac.compare_digest(known.secret_hash, hashed) else None


def _known(key: ApiKey) -> _Known:
    caller = Caller(key.principal, key.key_id, frozenset(key.scopes), key.limits)
    return _Known(caller, key.secret_hash, key.expires_at, key.revoked_at is not None)
