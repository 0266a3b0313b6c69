"""quality_regression: a failed run, which is what people are alerted by, when what serves has become worse."""

import dagster as dg

from rag_platform import identity
from rag_platform.errors import ConfigurationError
from rag_platform.evaluation.regression import regressions
from rag_platform.jobs import report_regression
from rag_platform.resources import PlatformResource


@dg.sensor(
    job=report_regression,
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Compares the newest evaluation of the serving release with the one before it, by the demands of the "
    "golden sets. When it is worse, requests one run of `report_regression`, which fails and says why. Asks nothing.",
)
def quality_regression(
    context: dg.SensorEvaluationContext, platform: PlatformResource
) -> dg.RunRequest | dg.SkipReason:
    bench = platform.bench
    try:
        found = regressions(bench.settings, bench.ledger)
    except ConfigurationError as e:
        return dg.SkipReason(str(e))
    if not found:
        return dg.SkipReason("what serves meets the demands of the golden sets, or has not been evaluated")
    # Once for each fall: found to be so again it is no news; after it was good in between, it is.
    falls = sorted(f"{r.newest.evaluation_id} {'' if r.before is None else r.before.finished_at}" for r in found)
    return dg.RunRequest(run_key=identity.digest("regression", *falls)[:32])
