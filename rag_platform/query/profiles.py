"""How much is done for a question: three named sets of steps and budgets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """Steps and budgets of a question. Every stage gets ``min(its budget, what remains of the deadline)``.

    Attributes:
        deadline_s: seconds for everything, unless the request names its own.
        k: passages that the answer may rest on.
        candidates: hits that each leg of the retrieval contributes.
        rerank, rewrite, multi_query: whether the step runs (the last two only where an LLM is
            configured); ``multi_query`` is the number of further wordings.
        rerank_depth: candidates that the reranker judges.
        context_tokens: budget of the passages given to the generator, in tokens of the embedder.
        answer_tokens: length of a generated answer.
        embed_s, search_s, rerank_s, rewrite_s: budgets of the stages in seconds; the generator has the rest.
    """

    name: str
    deadline_s: float
    k: int
    candidates: int
    rerank: bool
    rewrite: bool
    multi_query: int
    rerank_depth: int
    context_tokens: int
    answer_tokens: int
    embed_s: float = 1.5
    search_s: float = 3.0
    rerank_s: float = 3.0
    rewrite_s: float = 3.0


PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (
        Profile("fast", 5.0, 4, 30, False, False, 0, 0, 800, 200, embed_s=0.5, search_s=1.0),
        Profile("balanced", 15.0, 6, 50, True, True, 0, 10, 1600, 400),
        Profile(
            "thorough",
            45.0,
            12,
            100,
            True,
            True,
            3,
            30,
            4000,
            800,
            embed_s=2.0,
            search_s=4.0,
            rerank_s=4.0,
            rewrite_s=6.0,
        ),
    )
}
