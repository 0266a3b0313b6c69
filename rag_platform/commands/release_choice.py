"""Which release a command is about, and its scores."""

from __future__ import annotations

from rag_platform.errors import ConfigurationError
from rag_platform.ingestion.workbench import Workbench
from rag_platform.ledger import Ledger
from rag_platform.ledger.evaluations import Evaluation
from rag_platform.ledger.releases import Release

SHOWN = (
    "recall_at_10",
    "vector_recall_at_10",
    "keyword_recall_at_10",
    "ndcg_at_10",
    "contains_gold",
    "citation_recall",
    "refusal_accuracy",
)
"""Metrics in tables that have a row for each evaluation."""


def find(ledger: Ledger, release_id: str | None) -> Release:
    """Return the release of this id, or the only one whose id begins so; None: the one that serves.

    Raises:
        ConfigurationError: there is none, or several begin so.
    """
    releases = ledger.releases.all()
    if release_id is None:
        serving = ledger.releases.serving()
        if serving is None:
            raise ConfigurationError("nothing is indexed yet: run `rag ingest --source DIR --name NAME`")
        return serving
    found = [r for r in releases if r.release_id == release_id] or [
        r for r in releases if release_id and r.release_id.startswith(release_id)
    ]
    if len(found) != 1:
        known = ", ".join(r.release_id for r in releases) or "none"
        what = "several releases begin with" if found else "there is no release"
        raise ConfigurationError(f"{what} {release_id!r}; there are {known}")
    return found[0]


def newest_evaluations(ledger: Ledger, release: Release) -> list[Evaluation]:
    """Return the newest complete evaluation of a release on each set."""
    found: dict[str, Evaluation] = {}
    for evaluation in ledger.evaluations.list(release_id=release.release_id):
        if evaluation.summary is not None:
            found.setdefault(evaluation.golden_set, evaluation)
    return list(found.values())


def gate_refusal(bench: Workbench, *, in_full: bool = True) -> str | None:
    """Return why the release that the settings make does not serve, when that was decided; None otherwise.

    Args:
        in_full: with the worst questions, a line for each demand.
    """
    serving = bench.ledger.releases.serving()
    if serving is None or serving.release_id == bench.release_id:
        return None
    newest = next(iter(bench.ledger.releases.decisions(bench.release_id, limit=1)), None)
    if newest is None or newest.decision == "promoted":
        return None
    what = "was rolled back" if newest.decision == "rolled_back" else "does not pass the gate"
    more = f"{serving.release_id} goes on serving; see `rag release show {bench.release_id}`"
    if in_full:
        reasons = "".join(f"\n  - {reason}" for reason in newest.reasons)
        return f"{bench.release_id}, which the settings make, {what}:{reasons}\n{more}"
    return f"{bench.release_id}, which the settings make, {what}. {more}"
