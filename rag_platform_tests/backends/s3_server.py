"""A real S3 API on loopback (moto's server) and buckets in it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator

import boto3
import pytest
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from moto.server import ThreadedMotoServer

_numbers = itertools.count()


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """Address of a server that runs for the test module."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a fresh bucket; the environment points every S3 client at the server."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{next(_numbers)}"
    client().create_bucket(Bucket=bucket)
    return bucket


def client():
    """A boto3 client of the server, as the environment says."""
    return boto3.client("s3")


def put_many(bucket: str, keys: Iterable[str]) -> None:
    """Put one-byte objects straight into the server, which runs in this process: requests take 20 ms each."""
    backend = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
    for key in keys:
        backend.put_object(bucket, key, b"x")
