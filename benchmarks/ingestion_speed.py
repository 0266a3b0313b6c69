"""How fast is a whole ingestion, beside its floor: the embedder alone on the same chunks?

    python benchmarks/ingestion_speed.py [--data ../shared/data/aws_docs/docs] [--sizes 125,500,2000]

For each size: a fresh RAG_HOME, the real ``rag ingest`` in a process of its own on that many Markdown
documents (taken evenly from the sorted list), then the same again on the unchanged corpus, then the
embedder alone on the distinct chunk texts of that index. Prints documents/s, chunks/s, the ratio of
the whole job to the floor, in wall time and in CPU time, and peak memory; the sizes show how time and
memory grow. The machine is noisy: read the ratios, which come from one run, before the seconds; and where
something else ran at the same time only the ratio of CPU times, parsers included, says something.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEFAULT_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "aws_docs" / "docs"

FLOOR = """
import asyncio, json, sys, time
from rag_platform import backends
from rag_platform.ingestion.embed import embed_texts
from rag_platform.settings import Settings
settings = Settings.from_env()
embedder = backends.load("embedders", settings.embedder).build(settings)
texts = json.load(sys.stdin)
asyncio.run(embed_texts(embedder, [("warm", "warm up")], timeout_s=120))
started, cpu = time.perf_counter(), time.process_time()
outcome = asyncio.run(embed_texts(embedder, list(enumerate(texts)), timeout_s=3600))
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
print(json.dumps({"seconds": seconds, "cpu": cpu, "texts": len(outcome.vectors)}))
"""


def pick(data: Path, count: int) -> list[Path]:
    """Return ``count`` Markdown files, evenly from the sorted list."""
    files = sorted(p for p in data.rglob("*.md") if p.is_file())
    if len(files) < count:
        raise SystemExit(f"{data} holds only {len(files)} Markdown files")
    return [files[i * len(files) // count] for i in range(count)]


def measured(command: list[str], env: dict[str, str], stdin: str | None = None) -> tuple[str, float, float, int]:
    """Run a command; return its output, wall and CPU seconds (of its children too) and peak resident bytes."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as fed:
        if stdin is not None:
            fed.write(stdin)
            fed.seek(0)
        process = subprocess.Popen(command, stdin=fed, stdout=out, env=env, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} … ended with {process.returncode}")
    return text, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def one(data: Path, count: int, folder: Path) -> dict[str, float]:
    """Measure one size."""
    docs = folder / "docs"
    for path in pick(data, count):
        target = docs / path.relative_to(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAG_") or k == "RAG_CACHE_DIR"}
    env |= {"RAG_HOME": str(folder / "home"), "RAG_MAX_DEAD_LETTER_SHARE": "1"}
    rag = [sys.executable, "-m", "rag_platform.cli"]
    ingest = [*rag, "ingest", "--source", str(docs), "--name", "docs", "--json"]
    _, whole, cpu, memory = measured(ingest, env)
    _, again, _, _ = measured(ingest, env)
    dump, *_ = measured([*rag, "index", "dump", "--text"], env)
    rows = [json.loads(line)["text"] for line in dump.splitlines()]
    out, _, _, floor_memory = measured([sys.executable, "-c", FLOOR], env, json.dumps(sorted(set(rows))))
    floor = json.loads(out)
    return {
        "documents": count,
        "chunks": len(rows),
        "texts": floor["texts"],
        "whole_s": whole,
        "floor_s": floor["seconds"],
        "cpu_ratio": cpu / floor["cpu"],
        "again_s": again,
        "memory": memory,
        "floor_memory": floor_memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--sizes", default="125,500,2000")
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(f"{options.data} does not exist: give --data FOLDER with Markdown files")
    head = (
        "documents",
        "chunks",
        "whole s",
        "floor s",
        "ratio",
        "CPU ratio",
        "docs/s",
        "chunks/s",
        "again s",
        "peak MB",
        "floor MB",
    )
    print("  ".join(f"{h:>9}" for h in head), flush=True)
    for count in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix="rag-benchmark-") as folder:
            r = one(options.data, count, Path(folder))
        cells = (
            f"{count}", f"{r['chunks']:.0f}", f"{r['whole_s']:.1f}", f"{r['floor_s']:.1f}",
            f"{r['whole_s'] / r['floor_s']:.2f}", f"{r['cpu_ratio']:.2f}", f"{count / r['whole_s']:.1f}", f"{r['chunks'] / r['whole_s']:.1f}",
            f"{r['again_s']:.1f}", f"{r['memory'] / 2**20:.0f}", f"{r['floor_memory'] / 2**20:.0f}",
        )  # fmt: skip
        print("  ".join(f"{c:>9}" for c in cells), flush=True)


if __name__ == "__main__":
    main()
