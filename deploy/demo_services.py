"""``make demo-services``: the demo on real servers, by environment variables alone.

Starts what this machine has (Weaviate, Redis, PostgreSQL, an S3 server), each on a free port of loopback with a folder
of its own, runs ``rag demo`` with the variables that point at them, and stops what it started. What is missing is named,
with the cure, and its embedded default serves instead. The servers and their data are gone afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rag_platform_tests.backends import redis_server, weaviate_server
from rag_platform_tests.ledger import postgres_server

START_TIMEOUT_S = 60.0
BUCKET = "rag-demo"
S3_ACCESS = {
    "AWS_ACCESS_KEY_ID": "demo",
    "AWS_SECRET_ACCESS_KEY": "demo",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def weaviate(stack: contextlib.ExitStack) -> dict[str, str] | str:
    """Return the variables of a Weaviate server, or why there is none."""
    binary = weaviate_server.binary(build=True)
    if binary is None:
        return weaviate_server.CURE
    server = stack.enter_context(weaviate_server.running(binary))
    return {"RAG_VECTOR_STORE": "weaviate", "RAG_WEAVIATE_URL": server.url, "RAG_WEAVIATE_GRPC": server.grpc}


def redis(stack: contextlib.ExitStack) -> dict[str, str] | str:
    """Return the variables of a Redis server, or why there is none."""
    binary = redis_server.vector_binary() or redis_server.plain_binary()
    if binary is None:
        return "apt-get install redis-server"
    return {"RAG_CACHE": "redis", "RAG_REDIS_URL": stack.enter_context(redis_server.running(binary)).url}


def postgresql(stack: contextlib.ExitStack) -> dict[str, str] | str:
    """Return the variables of a PostgreSQL server for the ledger and for Dagster, or why there is none."""
    folder = postgres_server.binaries()
    if folder is None:
        return "apt-get install postgresql"
    server = stack.enter_context(postgres_server.running(folder))
    databases = {"RAG_LEDGER_URL": "ledger", "RAG_DAGSTER_POSTGRES_URL": "dagster"}
    return {variable: postgres_server.create_database(server, name) for variable, name in databases.items()}


def s3(stack: contextlib.ExitStack) -> dict[str, str] | str:
    """Return the variables of an S3 server (moto's) with a bucket, or why there is none."""
    program = Path(sys.executable).with_name("moto_server")
    if not program.exists():
        return "pip install 'moto[server]'"
    port = redis_server.free_port()
    process = subprocess.Popen(
        [str(program), "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(_stop, process)
    url = f"http://127.0.0.1:{port}"
    _wait_for(f"{url}/moto-api/", process)
    import boto3

    access = S3_ACCESS | {"AWS_ENDPOINT_URL": url}
    os.environ.update(access)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    return access | {"RAG_OBJECT_STORE_URL": f"s3://{BUCKET}/objects"}


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{url} did not come up") from None
            time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def services() -> Iterator[dict[str, str]]:
    """Start everything; yields the variables that point at it."""
    variables: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        for name, start in (("Weaviate", weaviate), ("Redis", redis), ("PostgreSQL", postgresql), ("S3 (moto)", s3)):
            found = start(stack)
            if isinstance(found, str):
                print(f"{name:<12} not here ({found}): the embedded default serves instead", flush=True)
                continue
            print(f"{name:<12} runs", flush=True)
            for variable, value in found.items():
                print(f"             {variable}={value}", flush=True)
            variables |= found
        yield variables


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped demo stops what it has started
    home = tempfile.mkdtemp(prefix="rag-demo-services-")
    try:
        with services() as variables:
            environment = {k: v for k, v in os.environ.items() if not k.startswith("RAG_")}
            rag = [sys.executable, "-m", "rag_platform.cli"]
            return subprocess.run(
                [*rag, "demo"], env=environment | variables | {"RAG_HOME": home}, check=False
            ).returncode
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
