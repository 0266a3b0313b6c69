"""Excel workbooks: each sheet a heading and a table. Values, not formulas; rows are streamed."""

from __future__ import annotations

import datetime
import io
import warnings
from collections.abc import Iterator
from typing import Any, Final

from rag_platform.errors import CorruptDocument, EncryptedDocument, LimitExceeded
from rag_platform.ingestion.parsers.base import Block, Limits, RawDocument
from rag_platform.ingestion.parsers.containers import open_zip
from rag_platform.ingestion.parsers.ooxml import drawing_text, transitional
from rag_platform.ingestion.parsers.tables import Rows, table_text

SUFFIXES: Final = (".xlsx", ".xlsm", ".xltx", ".xltm", ".xls", ".xlt")
VERSION: Final = 1

_EMPTY_ROWS_THAT_END_A_TABLE: Final = 1
_MAX_COLUMNS: Final = 2000
_MAX_EMPTY_ROWS: Final = 200_000


def parse(data: bytes, suffix: str, limits: Limits) -> RawDocument:
    """Read a workbook.

    Raises:
        CorruptDocument, EncryptedDocument, LimitExceeded: as the names say.
    """
    if data[:2] == b"PK":
        return _xlsx(data, limits)
    return _xls(data, limits)


def _xlsx(data: bytes, limits: Limits) -> RawDocument:
    import openpyxl

    data = transitional(data, limits)
    raw = RawDocument(
        mime_type="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", parser="spreadsheet"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
            raw.title = book.properties.title if book.properties else None
            for sheet in book.worksheets:
                sheet.reset_dimensions()
                _add_sheet(raw, sheet.title, sheet.iter_rows(values_only=True, max_col=_MAX_COLUMNS), limits)
            book.close()
        except (KeyError, ValueError, TypeError, AttributeError, OSError) as e:
            raise CorruptDocument(f"its workbook is damaged ({type(e).__name__})") from e
    with open_zip(data, limits) as archive:
        raw.blocks += [Block("text", text) for text in drawing_text(archive, "xl/")]
    return raw


def _xls(data: bytes, limits: Limits) -> RawDocument:
    import xlrd

    raw = RawDocument(mime_type="application/vnd.ms-excel", parser="spreadsheet")
    try:
        book = xlrd.open_workbook(file_contents=data, on_demand=True, logfile=io.StringIO())
        for name in book.sheet_names():
            sheet = book.sheet_by_name(name)
            rows = (_xls_row(book, sheet, r) for r in range(sheet.nrows))
            _add_sheet(raw, name, rows, limits)
            book.unload_sheet(name)
    except xlrd.XLRDError as e:
        if "encrypt" in str(e).lower():
            raise EncryptedDocument("needs a password") from e
        raise CorruptDocument("its workbook is damaged") from e
    return raw


def _xls_row(book: Any, sheet: Any, number: int) -> tuple[Any, ...]:
    import xlrd

    values: list[Any] = []
    for cell in sheet.row(number):
        if cell.ctype == xlrd.XL_CELL_DATE:
            try:
                values.append(xlrd.xldate_as_datetime(cell.value, book.datemode))
            except (ValueError, OverflowError):
                values.append(cell.value)
        elif cell.ctype == xlrd.XL_CELL_BOOLEAN:
            values.append(bool(cell.value))
        elif cell.ctype == xlrd.XL_CELL_ERROR:
            values.append(None)
        else:
            values.append(cell.value)
    return tuple(values)


def _add_sheet(raw: RawDocument, name: str, rows: Iterator[tuple[Any, ...]], limits: Limits) -> None:
    """Cut a sheet at its empty rows into tables. The sheet's name is a heading when it holds anything."""
    table: Rows = []
    started = False
    chars = empty = 0

    def flush() -> None:
        nonlocal started
        if text := table_text(table):
            if not started:
                raw.blocks.append(Block("heading", name, level=1))
                started = True
            raw.blocks.append(Block("table", text))
        table.clear()

    for row in rows:
        cells = [_shown(value) for value in row]
        if any(cells):
            while cells and not cells[-1]:
                cells.pop()
            chars += sum(map(len, cells))
            if chars > limits.max_text_chars:
                raise LimitExceeded(f"holds more than {limits.max_text_chars} characters of text")
            table.append(cells)
            empty = 0
            continue
        empty += 1
        if empty == _EMPTY_ROWS_THAT_END_A_TABLE:
            flush()
        elif empty > _MAX_EMPTY_ROWS:
            raw.warnings.append("a sheet was read up to a very long run of empty rows")
            break
    flush()


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else format(value, ".12g")
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "minutes")
    return str(value)
