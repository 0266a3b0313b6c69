"""No library reports to its vendor, and none leaves files for that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_onnxruntime_leaves_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    """onnxruntime's telemetry writes a session file as soon as it is imported; with the platform it is off."""
    code = "import rag_platform, onnxruntime"
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []
