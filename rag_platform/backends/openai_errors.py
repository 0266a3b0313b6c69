"""Everything that a call of the ``openai`` SDK may raise, as errors of ours."""

from __future__ import annotations

from collections.abc import Callable

import openai

from rag_platform.backends.retry_after import retry_after_s
from rag_platform.errors import (
    DependencyError,
    DependencyTimeout,
    QuotaExhausted,
    RagError,
    RateLimited,
)

_NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_OUR_PARAMETERS = frozenset(
    {
        *("model", "dimensions", "encoding_format", "user"),
        *("max_tokens", "max_completion_tokens", "temperature", "stream", "stream_options", "response_format"),
    }
)
"""What we chose, as against what a person wrote: refusing one of these is nobody's text's fault."""


def mapped(error: Exception, dependency: str, prefix: str, refused: Callable[[str], RagError]) -> RagError:
    """Return our error for ``error``. Never quotes the response: it may repeat the request's text.

    Args:
        prefix: of the variables that configure this dependency, such as ``RAG_LLM_``.
        refused: makes the error for a request that is refused for its content or size, from what
            happened (``HTTP 400``).
    """
    if isinstance(error, RagError):
        return error
    if isinstance(error, openai.APITimeoutError):
        return DependencyTimeout(dependency, "no answer in time")
    if isinstance(error, openai.APIConnectionError):
        return DependencyError(dependency, f"cannot be reached ({type(error.__cause__ or error).__name__})")
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, dependency, prefix, refused)
    if isinstance(error, openai.APIError):  # reported inside a stream that had begun well
        return DependencyError(dependency, "reported an error while it answered")
    # The SDK lets JSON, decoding and attribute errors through when the body is not what it expects.
    return DependencyError(dependency, f"answered nonsense ({type(error).__name__})")


def _of_status(
    error: openai.APIStatusError, dependency: str, prefix: str, refused: Callable[[str], RagError]
) -> RagError:
    status, code = error.status_code, error.code or error.type or ""
    retry_after = retry_after_s(error.response.headers)
    if code in _NO_CREDIT or error.type in _NO_CREDIT or status == 402:
        return QuotaExhausted(dependency, "out of credit or quota: raise the limit at the provider")
    if status == 429:
        return RateLimited(dependency, "too many requests", retry_after_s=retry_after)
    if status in (401, 403):
        return DependencyError(dependency, f"HTTP {status}: check {prefix}API_KEY and its rights", retryable=False)
    if status == 404 or code == "model_not_found":
        return DependencyError(dependency, f"HTTP {status}: check {prefix}MODEL and {prefix}BASE_URL", retryable=False)
    if status in (400, 422) and error.param in _OUR_PARAMETERS:
        return DependencyError(dependency, f"HTTP {status}: it refuses the parameter {error.param}", retryable=False)
    if status in (400, 413, 422):
        return refused(f"HTTP {status}")
    retryable = status >= 500 or status in (408, 409, 425)
    return DependencyError(dependency, f"HTTP {status}", retryable=retryable, retry_after_s=retry_after)
