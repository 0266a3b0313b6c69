"""evaluation_samples: answers that readers got, judged."""

import dagster as dg

from rag_platform import telemetry
from rag_platform.assets.presentation import OWNERS, QUALITY, record
from rag_platform.assets.scores import scores
from rag_platform.errors import ConfigurationError, DependencyError
from rag_platform.evaluation.serving import evaluate_last_traffic
from rag_platform.resources import PlatformResource


@dg.asset(
    group_name=QUALITY,
    owners=OWNERS,
    kinds={"ragas"},
    description="A sample of last week's answers (RAG_EVAL_SAMPLE_RATE, and every thumb down), scored by the judge "
    "without a reference. Needs RAG_QUERY_LOG=full and RAG_JUDGE; says what was left out, and shows no question.",
)
def evaluation_samples(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    bench = platform.bench

    def progress(done: int, samples: int) -> None:
        telemetry.report_progress("judge", done, samples)

    try:
        found, notes = evaluate_last_traffic(bench, progress)
    except (DependencyError, ConfigurationError) as e:
        if isinstance(e, DependencyError):
            record(context, bench, {"outage": 1})
        raise dg.Failure(
            f"{e} — what was scored is kept: the next run goes on from there",
            allow_retries=isinstance(e, DependencyError) and e.retryable,
        ) from e
    if not found.reports and bench.settings.judge == "none":
        notes.append("without a judge (RAG_JUDGE) live traffic is not scored")
    return dg.MaterializeResult(
        metadata={
            "chosen": found.traffic.chosen,
            "sampled": len(found.traffic.samples),
            "thumbs_down": sum(s.thumbs_down for s in found.traffic.samples),
            **{f"left_out_{reason.replace(' ', '_')}": count for reason, count in found.traffic.left_out.items()},
            **scores(found.reports, notes),
        }
    )
