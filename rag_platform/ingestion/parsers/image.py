"""Images are pages to be read by OCR: png, jpeg, bmp, webp, the first frame of a gif, every page of a tiff."""

from __future__ import annotations

import io
import warnings
from typing import Any, Final

import PIL.Image
import PIL.ImageOps

from rag_platform.errors import CorruptDocument, LimitExceeded, UnsupportedFormat
from rag_platform.ingestion.parsers import ocr, page_layout
from rag_platform.ingestion.parsers.base import Limits, RawDocument
from rag_platform.ingestion.parsers.page_layout import Line

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
VERSION: Final = 2

_MAX_PIXELS: Final = 100_000_000
"""Above this an image is refused before it is decoded: it would take 300 MB."""


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read the text of an image. An image without text gives no blocks.

    Raises:
        UnsupportedFormat: OCR is off.
        CorruptDocument: it cannot be decoded.
        LimitExceeded: too many pixels or pages.
        ConfigurationError: OCR is on and not installed.
    """
    if limits.ocr == "off":
        raise UnsupportedFormat("an image, and OCR is off", cure="set RAG_OCR=auto")
    notes: list[str] = []
    pages: list[tuple[int, list[Line]]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open(data)
        count = 1 if image.format == "GIF" else int(getattr(image, "n_frames", 1))
        if count > limits.max_pages:
            raise LimitExceeded(f"has {count} pages; the limit is {limits.max_pages}")
        for number in range(1, count + 1):
            if number > limits.ocr_max_pages:
                notes.append(
                    f"pages from {number} on were not read: at most {limits.ocr_max_pages} pages are read by OCR"
                )
                break
            pixels = _pixels(image, number, notes)
            if pixels is None:
                continue
            seen = ocr.read_page(pixels, limits.languages)
            if seen.lines:
                pages.append((number, seen.lines))
        mime = PIL.Image.MIME.get(image.format or "", "image/unknown")
    return RawDocument(
        blocks=page_layout.blocks(pages),
        mime_type=mime,
        page_count=count,
        ocr_pages=[number for number, _ in pages],
        warnings=notes,
        parser="ocr",
    )


def _open(data: bytes) -> PIL.Image.Image:
    try:
        image = PIL.Image.open(io.BytesIO(data))
    except PIL.Image.DecompressionBombError as e:
        raise LimitExceeded("has more pixels than an image may have") from e
    except (PIL.UnidentifiedImageError, OSError, ValueError, SyntaxError) as e:
        raise CorruptDocument("the image cannot be decoded") from e
    _check_size(image)
    return image


def _check_size(image: PIL.Image.Image) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise LimitExceeded(f"has {image.width} × {image.height} pixels; the limit is {_MAX_PIXELS}")


def _pixels(image: PIL.Image.Image, number: int, notes: list[str]) -> Any:
    """Return page ``number`` upright as its EXIF says, at most ``ocr.MAX_PIXELS``: uint8 (h, w, 3) BGR.
    None when this page is damaged and it is not the only one."""
    import numpy as np

    try:
        image.seek(number - 1)
        _check_size(image)
        image.draft("RGB", _bounded(image.size))  # lets the JPEG decoder shrink while decoding
        frame: PIL.Image.Image = PIL.ImageOps.exif_transpose(image)
        size = _bounded(frame.size)
        if size != frame.size:
            frame = frame.convert("RGBA" if _is_transparent(frame) else "RGB").resize(
                size, PIL.Image.Resampling.LANCZOS
            )
        return np.ascontiguousarray(np.asarray(_on_white(frame))[:, :, ::-1])
    except PIL.Image.DecompressionBombError as e:
        raise LimitExceeded("has more pixels than an image may have") from e
    except (OSError, ValueError, SyntaxError, EOFError) as e:
        if number == 1:
            raise CorruptDocument("the image cannot be decoded") from e
        notes.append(f"page {number} could not be decoded")
        return None


def _bounded(size: tuple[int, int]) -> tuple[int, int]:
    pixels = size[0] * size[1]
    if pixels <= ocr.MAX_PIXELS:
        return size
    scale = (ocr.MAX_PIXELS / pixels) ** 0.5
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _is_transparent(image: PIL.Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    """Flatten transparency onto white: black text on nothing would be black on black. 16-bit greys
    are scaled, where a plain conversion would clip them to white."""
    if image.mode.startswith("I") or image.mode == "F":
        low, high = image.getextrema()
        span = max(1.0, float(high) - float(low))  # type: ignore[arg-type]
        image = image.convert("F").point(lambda v: (v - float(low)) * (255.0 / span)).convert("L")  # type: ignore[arg-type]
    if not _is_transparent(image):
        return image.convert("RGB")
    layered = image.convert("RGBA")
    white = PIL.Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return PIL.Image.alpha_composite(white, layered).convert("RGB")
