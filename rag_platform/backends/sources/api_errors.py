"""What goes wrong with any vendor's API, in the platform's errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import httpx

from rag_platform.backends.retry_after import retry_after_s
from rag_platform.backends.sources.addresses import AddressRefused
from rag_platform.backends.sources.api_transport import ExchangeTimeout
from rag_platform.backends.sources.http_client import BodyTooLarge, ExchangeFailed
from rag_platform.errors import DependencyError, DependencyTimeout, IncompleteListing, LimitExceeded, RateLimited

T = TypeVar("T")

UNEXPECTED = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""What reading JSON of another shape raises."""


def exchanged(dependency: str, call: Callable[[], T]) -> T:
    """Return what ``call``, an exchange through a ``SourceTransport``, returns.

    Raises:
        DependencyError: there was no usable answer.
        LimitExceeded: the body is larger than it may be.
    """
    try:
        return call()
    except AddressRefused as e:
        cure = "set RAG_ALLOW_PRIVATE_ADDRESSES=true when that is meant"
        raise DependencyError(dependency, f"its address is not public; {cure}", retryable=False) from e
    except BodyTooLarge as e:
        raise LimitExceeded("it is larger than it may be") from e
    except ExchangeTimeout as e:
        raise DependencyTimeout(dependency, str(e)) from e
    except ExchangeFailed as e:
        raise DependencyError(dependency, f"no usable answer: {e}") from e


def refused_token(dependency: str, status: int, variable: str) -> DependencyError:
    """Return the error for a login that is not accepted; names the cure."""
    return DependencyError(
        dependency,
        f"HTTP {status}: the token is refused or has expired; make a new one and put it into {variable}",
        retryable=False,
    )


def rate_limited(dependency: str, headers: httpx.Headers) -> RateLimited:
    """Return the error for a 429 that did not end within the deadline."""
    return RateLimited(dependency, "HTTP 429", retry_after_s=retry_after_s(headers))


def incomplete(error: DependencyError) -> IncompleteListing:
    """Return a failure as one of a listing, with its reason and what it says about trying again."""
    if isinstance(error, IncompleteListing):
        return error
    reason = str(error).removeprefix(f"{error.dependency}: ")
    return IncompleteListing(error.dependency, reason, retryable=error.retryable, retry_after_s=error.retry_after_s)
