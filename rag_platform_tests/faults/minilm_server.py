"""OpenAI's ``/v1/embeddings`` served with the local MiniLM vectors, as a process: what is near in it is near in meaning.

python -m rag_platform_tests.faults.minilm_server      prints its port
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rag_platform.backends.embedders.onnx_minilm import OnnxMiniLMEmbedder, build
from rag_platform.settings import Settings

MODEL = "all-MiniLM-L6-v2"
DIMENSIONS = 384


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, embedder: OnnxMiniLMEmbedder) -> None:
        self.embedder = embedder
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        super().__init__(("127.0.0.1", 0), _Handler)

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
        batch = asyncio.run_coroutine_threadsafe(self.server.embedder.embed(texts), self.server.loop).result()
        packed = body.get("encoding_format") == "base64"
        rows = [
            {"object": "embedding", "index": i, "embedding": _packed(v) if packed else v.tolist()}
            for i, v in enumerate(batch.vectors)
        ]
        usage = {"prompt_tokens": batch.tokens, "total_tokens": batch.tokens}
        raw = json.dumps({"object": "list", "data": rows, "model": MODEL, "usage": usage}).encode()
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
