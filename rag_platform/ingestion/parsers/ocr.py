"""Reads the image of a page with what is installed.

The default engine is rapidocr: PP-OCR models inside its wheel, onnxruntime, no network, Latin scripts,
Chinese and Japanese. Tesseract is used where it is installed, has the requested languages, and one of
them is in a script that rapidocr's models do not know (Arabic, Cyrillic, Hebrew, Korean …); it is never
required. Only rapidocr's detection and recognition run: its 180° line classifier turned correct lines
upside down (two of 33 on a clean scan), so direction is decided here, for the page as a whole.
"""

from __future__ import annotations

import functools
import importlib.metadata
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rag_platform.errors import ConfigurationError, LimitExceeded
from rag_platform.ingestion.parsers import progress, tesseract
from rag_platform.ingestion.parsers.page_layout import Line
from rag_platform.ingestion.parsers.reading_order import Box, rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Image = NDArray[np.uint8]

VERSION: Final = 2
MAX_PIXELS: Final = 4_200_000
"""Rendered pages are kept below this: A4 at 200 dpi is 3.9 million."""
DPI: Final = 200

_MORE_MEMORY: Final = "raise RAG_PARSE_MEMORY_MB to 2048 or more"
_INSTALL: Final = "pip install rapidocr onnxruntime opencv-python-headless, or set RAG_OCR=off"
_DETECTION_SIDE: Final = 1280
_MIN_CONFIDENCE: Final = 0.5
_SURE: Final = 0.85
_SAMPLE_LINES: Final = 6
_BATCH: Final = 8
_NEEDED_BYTES: Final = 750 * 1024**2  # measured: models and libraries 550 MB, a full page 200 MB
# ISO 639-2 codes (tesseract's names) in scripts of the bundled models; other Latin languages read as well.
_RAPIDOCR_LANGUAGES: Final = frozenset(
    [
        "eng",
        "deu",
        "fra",
        "spa",
        "ita",
        "por",
        "nld",
        "swe",
        "nor",
        "dan",
        "fin",
        "pol",
        "ces",
        "slk",
        "slv",
        "hrv",
        "bos",
        "srp_latn",
        "ron",
        "hun",
        "tur",
        "est",
        "lav",
        "lit",
        "sqi",
        "cat",
        "glg",
        "eus",
        "gle",
        "cym",
        "isl",
        "mlt",
        "lat",
        "afr",
        "ind",
        "msa",
        "vie",
        "tgl",
        "swa",
        "uzb",
        "aze_latn",
        "oci",
        "chi_sim",
        "chi_tra",
        "jpn",
        "osd",
    ]
)


@dataclass(frozen=True, slots=True)
class PageReading:
    """What was read from one page.

    Attributes:
        lines: in reading order; coordinates are pixels of the upright page.
        confidence: mean over characters, 0 to 1; 0 for an empty page.
        rotation: degrees by which the image was turned counter-clockwise to be upright.
    """

    lines: list[Line]
    confidence: float = 0.0
    rotation: int = 0

    @property
    def text(self) -> str:
        return "\n".join(x.text for x in self.lines)


def tools() -> dict[str, str]:
    """Return the versions that the output depends on. Imports nothing heavy, starts no process."""
    found = {"ocr": str(VERSION)}
    for package in ("rapidocr", "onnxruntime"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if tesseract.find() is not None:
        found["tesseract"] = "installed"  # not its path, which differs between machines
    return found


def read_page(image: Image, languages: str = "eng") -> PageReading:
    """Read one page, whichever way up it is.

    Args:
        image: uint8, shape (height, width, 3), BGR.
        languages: tesseract's names joined by ``+``.

    Raises:
        ConfigurationError: the OCR engine is not installed, or not completely.
        LimitExceeded: not enough memory for the models.
    """
    progress.ocr_page()
    wanted = [x for x in languages.split("+") if x]
    if any(x not in _RAPIDOCR_LANGUAGES for x in wanted) and tesseract.has(wanted):
        read = tesseract.read(image, wanted)
        if read is not None:
            return _reading(*read)
    try:
        return _read_rapidocr(image)
    except MemoryError as e:
        raise LimitExceeded("not enough memory for OCR", cure=_MORE_MEMORY) from e
    except ImportError as e:  # also later than at the engine's building, which loads its runtime when it likes
        if any(mark in str(e) for mark in ("allocate memory", "failed to map segment")):
            raise LimitExceeded("not enough memory for OCR", cure=_MORE_MEMORY) from e
        raise ConfigurationError(f"OCR cannot be loaded ({e.name or type(e).__name__}): {_INSTALL}") from e


def _reading(boxes: Sequence[Box], texts: Sequence[str], scores: Sequence[float], rotation: int = 0) -> PageReading:
    kept = [(b, t, s) for b, t, s in zip(boxes, texts, scores, strict=True) if t.strip() and s >= _MIN_CONFIDENCE]
    if not kept:
        return PageReading([], rotation=rotation)
    lines = []
    heights = sorted(b.bottom - b.top for b, _, _ in kept)
    height = heights[len(heights) // 2]  # one size for the page: box heights are too noisy to find headings by
    for row in rows([b for b, _, _ in kept]):
        members = [kept[i] for i in row]
        text = " ".join(t.strip() for _, t, _ in members)
        lines.append(
            Line(
                text,
                min(b.left for b, _, _ in members),
                max(b.right for b, _, _ in members),
                max(b.bottom for b, _, _ in members),
                height,
            )
        )
    chars = sum(len(t) for _, t, _ in kept)
    confidence = sum(s * len(t) for _, t, s in kept) / chars
    return PageReading(lines, confidence, rotation)


# ── rapidocr ───────────────────────────────────────────────────────────────────────────────────


@functools.cache
def _engine() -> Any:
    """Build the engine once a process: one thread, bundled model files named so that nothing is
    ever downloaded."""
    _need_memory()
    import cv2
    import rapidocr

    cv2.setNumThreads(1)
    models = Path(rapidocr.__file__).parent / "models"
    params: dict[str, Any] = {
        "Global.log_level": "critical",
        "Global.use_cls": False,
        "Global.max_side_len": _DETECTION_SIDE,
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        "Det.model_path": _model(models, "*_det_*.onnx"),
        "Rec.model_path": _model(models, "*_rec_*.onnx"),
        "Rec.rec_batch_num": 1,  # no padding to the widest line: 40 % less time, and less memory
    }
    return rapidocr.RapidOCR(params=params)


def _model(folder: Path, pattern: str) -> str:
    found = sorted(folder.glob(pattern))
    if not found:
        raise ConfigurationError(f"OCR has no model {pattern}: {_INSTALL}")
    return str(found[0])


def _need_memory() -> None:
    """Refuse before loading what cannot fit: native libraries that find no memory abort the process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return
    if limit - used < _NEEDED_BYTES:
        raise MemoryError("address space for the OCR engine")


def _read_rapidocr(image: Image) -> PageReading:
    import numpy as np

    polygons = _detect(image)
    if polygons is None:
        return PageReading([])
    if _mostly_tall(polygons):
        first = _rotation_of_sample(image, polygons)
        turned = np.ascontiguousarray(np.rot90(image, 1 if first else 3))
        return _read_upright(turned, 90 if first else 270)
    reading = _read_upright(image, 0, polygons)
    if reading.confidence < _SURE and not _rotation_of_sample(image, polygons):
        flipped = _read_upright(np.ascontiguousarray(np.rot90(image, 2)), 180)
        if _mass(flipped) > _mass(reading):
            return flipped
    return reading


def _mass(reading: PageReading) -> float:
    return reading.confidence * len(reading.text)


def _read_upright(image: Image, rotation: int, polygons: Any = None) -> PageReading:
    if polygons is None:
        polygons = _detect(image)
        if polygons is None:
            return PageReading([], rotation=rotation)
    texts: list[str] = []
    scores: list[float] = []
    for start in range(0, len(polygons), _BATCH):
        found, confidences = _recognise(_crops(image, polygons[start : start + _BATCH]))
        texts += found
        scores += confidences
    boxes = [
        Box(float(p[:, 0].min()), float(p[:, 1].min()), float(p[:, 0].max()), float(p[:, 1].max())) for p in polygons
    ]
    return _reading(boxes, texts, scores, rotation)


def _detect(image: Image) -> Any:
    """Return text polygons, float, shape (n, 4, 2), or None."""
    output = _run(lambda: _engine()(image, use_det=True, use_cls=False, use_rec=False))
    polygons = output.boxes
    if polygons is None or len(polygons) == 0:
        return None
    extent = polygons.max(axis=1) - polygons.min(axis=1)
    polygons = polygons[(extent >= 3).all(axis=1)]
    return polygons if len(polygons) else None


def _crops(image: Image, polygons: Any) -> list[Any]:
    return list(_engine().crop_text_regions(image, polygons))


def _recognise(crops: list[Any]) -> tuple[list[str], list[float]]:
    output = _run(lambda: _engine().recognize_txt(crops))
    return list(output.txts), [float(s) for s in output.scores]


def _run(step: Any) -> Any:
    """Run a model; an allocation that failed inside onnxruntime or OpenCV becomes MemoryError."""
    try:
        return step()
    except MemoryError:
        raise
    except Exception as e:
        if any(mark in str(e) for mark in ("bad_alloc", "bad allocation", "Failed to allocate", "Insufficient memory")):
            raise MemoryError("inside the OCR engine") from e
        raise


def _mostly_tall(polygons: Any) -> bool:
    extent = polygons.max(axis=1) - polygons.min(axis=1)
    width, height = extent[:, 0], extent[:, 1]
    return bool(height[height > 1.5 * width].sum() > width[width > 1.5 * height].sum())


def _rotation_of_sample(image: Image, polygons: Any) -> bool:
    """Read the longest lines as cropped and upside down; return whether as cropped is at least as good.
    (The crop of a tall box is already turned by 90° counter-clockwise.)"""
    import numpy as np

    extent = polygons.max(axis=1) - polygons.min(axis=1)
    longest = np.argsort(-extent.max(axis=1), kind="stable")[:_SAMPLE_LINES]
    crops = _crops(image, polygons[longest])
    as_is = _recognise(crops)
    flipped = _recognise([np.ascontiguousarray(np.rot90(c, 2)) for c in crops])

    def mass(read: tuple[list[str], list[float]]) -> float:
        return sum(len(t) * s * s for t, s in zip(*read, strict=True))

    return mass(as_is) >= mass(flipped)
