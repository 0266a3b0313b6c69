"""What language models are told. A changed word changes ``PROMPT_VERSION``, and with it every cache key."""

from __future__ import annotations

from importlib import resources

from rag_platform import identity

NO_ANSWER = "NO_ANSWER"
"""What a model says, alone, when the passages do not answer. Readers never see it."""


def _read(name: str) -> str:
    return resources.files(__name__).joinpath(f"{name}.md").read_text("utf-8").strip()


ANSWER = _read("answer").replace("$NO_ANSWER", NO_ANSWER)
"""System prompt of ``generate``."""
REWRITE = _read("rewrite")
"""System prompt of ``rewrite``."""
MULTI_QUERY = _read("multi_query")
"""System prompt of ``multi_query``; ``$COUNT`` wordings."""

PROMPT_VERSION = identity.digest("prompts", ANSWER, REWRITE, MULTI_QUERY)[:12]
