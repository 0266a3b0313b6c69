"""OpenAI's ``/v1/embeddings`` served with the local MiniLM vectors, as a process: what is near in it is near in meaning.

Two models beside the right one have a mistake that nobody sees in a single vector: FIRST_TOKEN pools wrongly, TRUNCATED
cuts every text off.

python -m rag_platform_tests.faults.minilm_server      prints its port
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from rag_platform.backends.embedders.onnx_minilm import (
    OnnxMiniLMEmbedder,
    build,
    packaged_sessions,
    pooled,
    token_states,
)
from rag_platform.settings import Settings

MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384
FIRST_TOKEN, TRUNCATED = f"{MODEL}-first-token", f"{MODEL}-truncated"
TRUNCATED_CHARS = 24


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, embedder: OnnxMiniLMEmbedder) -> None:
        self.embedder = embedder
        self.sessions = packaged_sessions(Settings.from_env(embed_workers=1))
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        super().__init__(("127.0.0.1", 0), _Handler)

    async def first_tokens(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The state of the first token in the place of the mean of all; float32 (texts, DIMENSIONS)."""
        tokenizer = self.embedder.tokenizer

        def run(session: Any, text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
            (row,) = tokenizer.ids([text], self.embedder.spec.max_tokens)
            return pooled(token_states(session, row, "test")[:1], "test")

        return np.stack(await self.sessions.map(run, texts))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that left in the middle of an answer are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if body["model"] == TRUNCATED:
            texts = [text[:TRUNCATED_CHARS] for text in texts]
        batch = asyncio.run_coroutine_threadsafe(self.server.embedder.embed(texts), self.server.loop).result()
        vectors = batch.vectors
        if body["model"] == FIRST_TOKEN:
            vectors = asyncio.run_coroutine_threadsafe(self.server.first_tokens(texts), self.server.loop).result()
        packed = body.get("encoding_format") == "base64"
        rows = [
            {"object": "embedding", "index": i, "embedding": _packed(v) if packed else v.tolist()}
            for i, v in enumerate(vectors)
        ]
        usage = {"prompt_tokens": batch.tokens, "total_tokens": batch.tokens}
        raw = json.dumps({"object": "list", "data": rows, "model": body["model"], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def _packed(vector: Any) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


if __name__ == "__main__":
    with _Server(build(Settings.from_env(embed_workers=1))) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
