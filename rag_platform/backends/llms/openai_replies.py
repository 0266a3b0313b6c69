"""What servers that speak ``/v1/chat/completions`` really answer, read without trust."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rag_platform.backends.llms.base import FinishReason, TokenUsage
from rag_platform.errors import DependencyError

if TYPE_CHECKING:
    import openai

_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
_DISPENSABLE = ("stream_options", "response_format", "max_completion_tokens", "max_tokens", "temperature")
"""Parameters that some servers and models refuse."""


def piece(chunk: Any, dependency: str) -> tuple[str, FinishReason | None]:
    """Return the text and the finish reason of a stream's chunk; the one with the usage has neither.

    Raises:
        DependencyError: it is no chunk.
    """
    try:
        if not chunk.choices:
            return "", None
        choice = chunk.choices[0]
        text = (choice.delta.content if choice.delta is not None else None) or ""
        if not isinstance(text, str):
            raise nonsense(dependency)
        return text, _finish(choice.finish_reason)
    except (AttributeError, TypeError, LookupError) as e:
        raise nonsense(dependency) from e


def whole(answer: Any, dependency: str) -> tuple[str, FinishReason]:
    """Return the text and the finish reason of an answer that was not streamed.

    Raises:
        DependencyError: it is no answer, or has no finish reason.
    """
    try:
        choice = answer.choices[0]
        text, finish = choice.message.content or "", _finish(choice.finish_reason)
    except (AttributeError, TypeError, LookupError) as e:
        raise nonsense(dependency) from e
    if finish is None or not isinstance(text, str):
        raise nonsense(dependency)
    return text, finish


def usage(answer: Any) -> TokenUsage | None:
    """Return the counted tokens of an answer or chunk, None where there are none that make sense."""
    counted = getattr(answer, "usage", None)
    prompt, completion = getattr(counted, "prompt_tokens", None), getattr(counted, "completion_tokens", None)
    if not isinstance(prompt, int) or not isinstance(completion, int) or min(prompt, completion) < 0:
        return None
    return TokenUsage(prompt, completion)


def blamed(error: openai.APIStatusError, sent: Mapping[str, Any]) -> str | None:
    """Return which parameter of ours a refusal names; None when it is about something else."""
    named = re.findall(r"\w+", error.message) if error.param is None else [error.param.split(".")[0]]
    return next((name for name in named if name in _DISPENSABLE and name in sent), None)


def nonsense(dependency: str) -> DependencyError:
    return DependencyError(dependency, "answered something that is no completion")


def _finish(reason: Any) -> FinishReason | None:
    """A reason that we do not know (a tool call, a vendor's own word) means that it came to its end."""
    return None if reason is None else _FINISH.get(str(reason), "stop")
