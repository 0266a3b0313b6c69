"""rag_platform: documents in, a correct and permission-aware search index out."""

import os as _os

__version__ = "0.1.0"

# Libraries that report to their vendor (and leave files outside RAG_HOME for it) are told not to before any of
# them is imported: onnxruntime 1.32 does from its import on, ragas and unstructured at first use.
for _switch in ("ORT_DISABLE_TELEMETRY", "RAGAS_DO_NOT_TRACK", "DO_NOT_TRACK", "SCARF_NO_ANALYTICS"):
    _os.environ.setdefault(_switch, "true" if _switch.startswith("RAGAS") else "1")
del _switch
