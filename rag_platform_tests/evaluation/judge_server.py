"""A judge for RAGAS without a model: a real HTTP server that speaks OpenAI's protocol, answers RAGAS' prompts by
counting words, always the same, and can be told to misbehave (see ``MisbehavingLLM``). In this process, or in one of
its own (``judge_process``)::

    python -m rag_platform_tests.evaluation.judge_server --port 0

which prints its port, and is then told more by ``POST /control`` and asked by ``GET /control``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_platform_tests.backends.misbehaving_llm import MisbehavingLLM

ROOT = Path(__file__).parents[2]
SUPPORTED = 0.7
"""Share of a statement's longer words that must stand in a text for the judge to say yes."""


class JudgeServer(MisbehavingLLM):
    """
    Attributes:
        style: ``json``; ``fenced`` as Markdown; ``prose`` instead of JSON; ``loud``: verdicts of 7.
    """

    style = "json"

    def take_answer(self, messages: list[dict[str, str]]) -> str:
        with self.lock:
            if self.answers:
                return self.answers.pop(0)
        if self.style == "prose":
            return "I think that this answer is quite good, all in all."
        verdict = judged(messages[0]["content"])
        if self.style == "loud":
            return re.sub(r"(\"(?:verdict|attributed|noncommittal)\": )\d", r"\g<1>7", json.dumps(verdict))
        raw = json.dumps(verdict)
        return f"```json\n{raw}\n```" if self.style == "fenced" else raw


def judged(prompt: str) -> dict[str, Any]:
    """Return what the judge says to one of RAGAS' prompts."""
    schema, _ = json.JSONDecoder().raw_decode(prompt, prompt.index('{"', prompt.index("JSON Schema")))
    given, _ = json.JSONDecoder().raw_decode(prompt, prompt.index("{", prompt.rindex("\ninput:")))
    wanted = set(schema["properties"])
    if wanted == {"statements"} and "answer" in given:
        return {"statements": sentences(given["answer"])}
    if wanted == {"statements"}:
        said = [(s, supported(s, given["context"])) for s in given["statements"]]
        return {"statements": [{"statement": s, "reason": "by its words", "verdict": v} for s, v in said]}
    if wanted == {"classifications"}:
        said = [(s, supported(s, given["context"])) for s in sentences(given["answer"])]
        return {"classifications": [{"statement": s, "reason": "by its words", "attributed": v} for s, v in said]}
    if wanted == {"question", "noncommittal"}:
        evasive = int("know" in words(given["response"]))
        return {"question": f"{given['response'].rstrip('.')}?", "noncommittal": evasive}
    assert wanted == {"reason", "verdict"}, wanted
    return {"reason": "by its words", "verdict": supported(given["answer"], given["context"])}


def sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if words(s)]


def words(text: str) -> set[str]:
    return {w for w in re.findall(r"\w+", text.lower()) if len(w) > 3 or w.isdigit()}


def supported(statement: str, text: str) -> int:
    said = words(statement)
    return int(len(said & words(text)) >= SUPPORTED * len(said))


@dataclass(frozen=True)
class JudgeProcess:
    """A judge in a process of its own."""

    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def control(self, **told: Any) -> dict[str, Any]:
        """Tell it to behave in another way, or with nothing ask how it was used."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/control", json.dumps(told).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
        return state


@contextlib.contextmanager
def judge_process() -> Iterator[JudgeProcess]:
    """Start a judge on a free port, stop it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rag_platform_tests.evaluation.judge_server", "--port", "0"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield JudgeProcess(int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    server = JudgeServer(parser.parse_args().port)
    server.open()
    print(server.port, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    main()
