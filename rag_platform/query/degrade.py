"""What did not work while a question was answered: collected on the way, declared at the end."""

from __future__ import annotations

from rag_platform.query.answer import Degradation


class Notes:
    """The degradations of one question, each once, in the order in which they happened."""

    def __init__(self) -> None:
        self._found: dict[Degradation, None] = {}

    def add(self, stage: str, why: BaseException | str) -> None:
        """Note that ``stage`` did not do its part: an error (its class is kept, never its text) or a fixed word."""
        reason = why if isinstance(why, str) else type(why).__name__
        self._found[Degradation(stage, reason)] = None

    def __bool__(self) -> bool:
        return bool(self._found)

    def __contains__(self, stage: str) -> bool:
        return any(d.stage == stage for d in self._found)

    def as_list(self) -> list[Degradation]:
        return list(self._found)
