"""A process that serves the API around a fake service until a signal ends it: ``serve_fake.py HOME``. Prints its
address, and ``closed`` when everything has been closed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rag_platform.settings import Settings
from rag_platform_tests.serve.fake_service import FakeService
from serve.server import make_server


def main() -> None:
    settings = Settings.from_env({**os.environ, "RAG_HOME": str(Path(sys.argv[1]))})
    service = FakeService(settings)

    def say(text: str) -> None:
        print(text, flush=True)

    make_server(settings, "127.0.0.1", 0, say, service).run()
    say("closed" if service.closed else "not closed")


if __name__ == "__main__":
    main()
