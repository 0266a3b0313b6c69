"""What is asked, by whom, and how much may be spent on it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Literal

from rag_platform import identity
from rag_platform.backends.vector_stores.filters import Filter
from rag_platform.query.profiles import PROFILES, Profile
from rag_platform.records import Principal, SearchMode

MAX_QUESTION_CHARS = 4000
MAX_TURNS = 20
MAX_K = 50
MAX_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """One question of one reader.

    Attributes:
        text: as asked; white space around and inside it does not matter.
        history: earlier turns, oldest first.
        k: passages that may be cited; None: the profile's.
        rerank, max_answer_tokens: override the profile within its limits; None: the profile's.
        deadline_s: seconds for everything; None: the profile's.
        use_cache: False neither reads nor writes answer caches.
        key_id: API key that asked, for the query log; None without keys.
    """

    text: str
    principal: Principal
    request_id: str
    history: tuple[Turn, ...] = ()
    profile_name: str = "balanced"
    k: int | None = None
    mode: SearchMode = "hybrid"
    where: Filter | None = None
    rerank: bool | None = None
    max_answer_tokens: int | None = None
    deadline_s: float | None = None
    use_cache: bool = True
    key_id: str | None = None
    normalised: str = field(init=False)

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: empty, too long, or a number out of its limits; the message says which.
        """
        object.__setattr__(self, "normalised", normalise(self.text))
        if not self.normalised:
            raise ValueError("the question is empty")
        if len(self.text) > MAX_QUESTION_CHARS or any(len(t.text) > 4 * MAX_QUESTION_CHARS for t in self.history):
            raise ValueError(f"a question may hold at most {MAX_QUESTION_CHARS} characters, a turn four times that")
        if len(self.history) > MAX_TURNS:
            raise ValueError(f"a conversation may hold at most {MAX_TURNS} earlier turns")
        if self.profile_name not in PROFILES:
            raise ValueError(f"profile is one of {', '.join(PROFILES)}")
        if self.k is not None and not 1 <= self.k <= MAX_K:
            raise ValueError(f"k must be between 1 and {MAX_K}")
        if self.deadline_s is not None and not 0 < self.deadline_s <= MAX_DEADLINE_S:
            raise ValueError(f"the deadline must be above 0 and at most {MAX_DEADLINE_S:g} seconds")
        if self.max_answer_tokens is not None and not 1 <= self.max_answer_tokens <= 4 * self.profile.answer_tokens:
            raise ValueError(f"max_answer_tokens must be between 1 and {4 * self.profile.answer_tokens}")

    @property
    def profile(self) -> Profile:
        return PROFILES[self.profile_name]

    @property
    def history_digest(self) -> str:
        """Hash of the conversation so far; empty without one."""
        return identity.digest(*(part for t in self.history for part in (t.role, t.text))) if self.history else ""


_SPACE = re.compile(r"\s+")


def normalise(text: str) -> str:
    """Return the question as caches and steps see it: NFC, one space between words, no lone surrogate or NUL."""
    clean = text.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")
    return _SPACE.sub(" ", unicodedata.normalize("NFC", clean)).strip()
