"""index_release: which release serves, and why."""

import time

import dagster as dg

from rag_platform.assets.presentation import OWNERS, QUALITY, record, table
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.evaluation.promotion import promote, promote_if_passed, refusal
from rag_platform.resources import PlatformResource
from rag_platform.settings import Settings


class ReleaseConfig(dg.Config):
    """Which release to let serve."""

    release: str | None = None
    """A release by its id, as `rag release promote`; None: the candidate of the settings, when it has passed."""
    force: bool = False
    """Without an exam, and although documents are missing. Needs ``release``."""
    store: str | None = None
    """The vector store of the candidate; None: RAG_VECTOR_STORE."""


@dg.asset(
    deps=["evaluation_report"],
    group_name=QUALITY,
    owners=OWNERS,
    kinds={Settings.from_env().vector_store},
    description="The release that answers questions. A candidate takes over here when it is complete and has passed the "
    "gate; the query API follows within RAG_RELEASE_POLL_S. Materialize it with `release: ID` to promote one by hand.",
)
def index_release(
    context: dg.AssetExecutionContext, config: ReleaseConfig, platform: PlatformResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    bench = platform.bench if config.store is None else platform.bench.in_store(config.store)
    releases = bench.ledger.releases
    note = ""
    try:
        if config.release is not None:
            chosen = releases.get(config.release)
            if chosen is None:
                raise ConfigurationError(f"there is no release {config.release!r}: see `rag release list`")
            promote(bench, chosen, by="dagster", run_id=context.run.run_id, force=config.force)
        else:
            exam = promote_if_passed(bench)
            note = "" if exam is None or exam.passed else refusal(exam)
    except (DependencyError, ConfigurationError) as e:
        if isinstance(e, DependencyError):
            record(context, bench, {"outage": 1})
        raise dg.Failure(str(e), allow_retries=isinstance(e, DependencyError) and e.retryable) from e
    serving = releases.serving()
    decisions = releases.decisions(limit=20)
    return dg.MaterializeResult(
        metadata={
            "serving_release": "none" if serving is None else serving.release_id,
            "store": "" if serving is None else serving.store,
            "embedder": "" if serving is None else serving.pipeline["embedder"]["model"],
            "waits": note or "nothing",
            "decisions": table(
                ("release", "decision", "at", "by", "reasons"),
                ((d.release_id, d.decision, _time(d.at), d.by, "; ".join(d.reasons)) for d in decisions),
            ),
        }
    )


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
