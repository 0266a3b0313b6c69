"""Everything that a call of the ``openai`` SDK may raise, as errors of ours."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping

import openai

from rag_platform.errors import (
    DependencyError,
    DependencyTimeout,
    EmbeddingRefused,
    QuotaExhausted,
    RagError,
    RateLimited,
)

_NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_OUR_PARAMETERS = frozenset({"model", "dimensions", "encoding_format", "user"})
_MAX_RETRY_AFTER_S = 24 * 3600.0


def mapped(error: Exception, dependency: str) -> RagError:
    """Return our error for ``error``. Never quotes the response: it may repeat the request's text."""
    if isinstance(error, RagError):
        return error
    if isinstance(error, openai.APITimeoutError):
        return DependencyTimeout(dependency, "no answer in time")
    if isinstance(error, openai.APIConnectionError):
        return DependencyError(dependency, f"cannot be reached ({type(error.__cause__ or error).__name__})")
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, dependency)
    # The SDK lets JSON, decoding and attribute errors through when the body is not what it expects.
    return DependencyError(dependency, f"answered nonsense ({type(error).__name__})")


def _of_status(error: openai.APIStatusError, dependency: str) -> RagError:
    status, code = error.status_code, error.code or error.type or ""
    retry_after = _retry_after_s(error.response.headers)
    if code in _NO_CREDIT or error.type in _NO_CREDIT or status == 402:
        return QuotaExhausted(dependency, "out of credit or quota: raise the limit at the provider")
    if status == 429:
        return RateLimited(dependency, "too many requests", retry_after_s=retry_after)
    if status in (401, 403):
        return DependencyError(dependency, f"HTTP {status}: check RAG_OPENAI_API_KEY and its rights", retryable=False)
    if status == 404 or code == "model_not_found":
        return DependencyError(
            dependency, f"HTTP {status}: check RAG_OPENAI_MODEL and RAG_OPENAI_BASE_URL", retryable=False
        )
    if status in (400, 422) and error.param in _OUR_PARAMETERS:
        return DependencyError(dependency, f"HTTP {status}: it refuses the parameter {error.param}", retryable=False)
    if status in (400, 413, 422):
        return EmbeddingRefused(f"{dependency} refused the text (HTTP {status})")
    retryable = status >= 500 or status in (408, 409, 425)
    return DependencyError(dependency, f"HTTP {status}", retryable=retryable, retry_after_s=retry_after)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read ``retry-after-ms`` or ``Retry-After`` (seconds or an HTTP date)."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        raw = headers.get(name)
        if raw is None:
            continue
        try:
            seconds = float(raw) * scale
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(raw).timestamp() - time.time()
            except ValueError:
                continue
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S)
    return None
