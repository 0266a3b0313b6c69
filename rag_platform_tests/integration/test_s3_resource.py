"""Dagster's S3Resource and the platform speak to S3 with one login: as configured, and as overridden in Dagster."""

import dagster as dg
import pyarrow as pa
import pytest
from dagster_aws.s3 import S3Resource

from rag_platform.errors import ConfigurationError
from rag_platform.resources import PlatformResource, SegmentIOManager, platform_resources
from rag_platform.resources.s3 import S3PlatformResource, s3_resource, with_s3
from rag_platform.settings import Settings
from rag_platform_tests.backends.faulty_front import FaultyFront, before
from rag_platform_tests.backends.s3_server import client, s3_bucket, s3_endpoint  # noqa: F401 - fixtures

pytestmark = [
    pytest.mark.xdist_group("sensor"),
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning"),  # its own
]


@pytest.fixture
def front(s3_endpoint: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    """A server that notes who asks; asset storage on it, and the login in ``RAG_S3_…`` only."""
    with before(s3_endpoint) as noting:
        monkeypatch.setenv("RAG_OBJECT_STORE_URL", f"s3://{s3_bucket}/assets")
        monkeypatch.setenv("RAG_S3_ENDPOINT_URL", noting.url)
        monkeypatch.setenv("RAG_S3_ACCESS_KEY_ID", "OURKEY")
        monkeypatch.setenv("RAG_S3_SECRET_ACCESS_KEY", "our-secret")
        yield noting


def graph():
    """A table kept by the platform's IO manager, and an object written by the data engineer's own client."""

    @dg.asset(io_manager_key="segments")
    def table() -> pa.Table:
        return pa.table({"a": [1, 2]})

    @dg.asset
    def own(s3: S3Resource, platform: PlatformResource) -> None:
        bucket = platform.bench.objects.uri("x").split("/")[2]
        s3.get_client().put_object(Bucket=bucket, Key="assets/own", Body=b"x")
        assert platform.bench.objects.get("own") == b"x"

    return [table, own]


def who(front: FaultyFront) -> set[str]:
    """The access keys that asked."""
    return {
        a.headers.get("authorization", "?Credential=none/").split("Credential=")[1].split("/")[0] for a in front.asked
    }


def keys(bucket: str) -> list[str]:
    return sorted(o["Key"] for o in client().list_objects_v2(Bucket=bucket)["Contents"])


def test_one_login_for_both(front: FaultyFront, s3_bucket: str) -> None:  # noqa: F811
    """The engineer's asset and the platform's storage reach the same place as the same user."""
    assert dg.materialize(graph(), resources=platform_resources(Settings.from_env())).success
    assert keys(s3_bucket) == ["assets/exports/table.parquet", "assets/own"]
    assert who(front) == {"OURKEY"}


def test_a_login_overridden_in_dagster_is_the_platforms(
    front: FaultyFront,
    s3_bucket: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Definitions with another S3Resource: storage, and the settings that the sensor and all sources get."""
    monkeypatch.setenv("RAG_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("THEIR_SECRET", "their-secret")
    s3 = S3Resource(
        endpoint_url=front.url, aws_access_key_id="THEIRKEY", aws_secret_access_key=dg.EnvVar("THEIR_SECRET")
    )
    platform = S3PlatformResource(s3=s3)
    resources = {"platform": platform, "segments": SegmentIOManager(platform=platform), "s3": s3}
    assert dg.materialize(graph(), resources=resources).success
    assert keys(s3_bucket) == ["assets/exports/table.parquet", "assets/own"]
    assert who(front) == {"THEIRKEY"}


def test_the_resource_replaces_the_variables() -> None:
    """Nothing of the installation's own login is left beside another one."""
    environ = {"RAG_S3_ACCESS_KEY_ID": "k", "RAG_S3_SECRET_ACCESS_KEY": "s", "RAG_S3_TIMEOUT_S": "5", "HOME": "/"}
    overridden = with_s3(Settings(environ=environ), S3Resource(profile_name="reader", verify=False))
    assert dict(overridden.environ) == {
        "RAG_S3_PROFILE": "reader", "RAG_S3_ANONYMOUS": "False", "RAG_S3_VERIFY_TLS": "False",
        "RAG_S3_TIMEOUT_S": "5", "HOME": "/",
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match="use_ssl"):
        with_s3(Settings(), S3Resource(use_ssl=False))


def test_no_secret_is_configured_and_nothing_without_s3(front: FaultyFront) -> None:
    """What Dagster shows of the resource are names of variables; an installation without S3 has none, and no boto3."""
    shown = repr(s3_resource(Settings.from_env()))
    assert "our-secret" not in shown and "OURKEY" not in shown and "RAG_S3_SECRET_ACCESS_KEY" in shown
    assert set(platform_resources(Settings(environ={}))) == {"platform", "segments"}
