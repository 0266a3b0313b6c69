"""Write the part of the documentation that is not Markdown: ``docs/handouts`` and ``docs/broken``.

The demo corpus must show that PDF, DOCX, PPTX, XLSX, HTML, EML and scanned pages are read, so every
handout states facts about a fictional site, Harbour, that appear in no other file. The script is
deterministic: dates and ids are fixed, archives are repacked with fixed time stamps, the noise of the
scan is seeded. Run ``python docs/build_formats.py [TARGET]`` (needs the ``dev`` extra) after a change
and commit the result; ``test_demo_corpus.py`` compares the two.
"""

from __future__ import annotations

import io
import random
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STAMP = datetime(2026, 1, 12, 9, 0, 0)
AUTHOR = "Harbour platform team"


def build(target: Path = HERE) -> list[Path]:
    """Write every generated file below ``target`` and return their paths."""
    written = []
    for name, make in FILES.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
        written.append(path)
    return written


# ── operations handbook: PDF with headings, a table and five pages ─────────────────────────────

HANDBOOK: Sequence[tuple[str, Sequence[Any]]] = [
    (
        "Harbour Operations Handbook",
        [
            "Edition 4, valid from 12 January 2026. Harbour is the site that runs the document search of the "
            "Northern Ports Group. This handbook says what the operators of Harbour do every day, when they may "
            "change the system, and whom they ask.",
            "Harbour serves eleven port offices. Its search holds 186,000 documents in four sources: tariffs, "
            "safety notices, berth plans and correspondence. The owner of each source is named in the source "
            "register, which the port secretariat keeps.",
            "An operator of Harbour has read this handbook, has carried out one supervised restore, and is "
            "entered in the operators' list. A person who is not on the list may look but not change anything.",
        ],
    ),
    (
        "Daily routine",
        [
            "The morning check starts at 08:15 local time and takes about ten minutes. The operator on duty reads "
            "the open dead letters, looks at the freshness check of every source, and notes the free disk space "
            "in the log book.",
            "The table gives the limits of Harbour. They are stricter than the defaults of the platform, because "
            "safety notices must be found on the day on which they are published.",
            [
                ["Signal", "Normal", "Act when"],
                ["Open dead letters", "fewer than 40", "more than 90"],
                ["Age of the last scan", "under 10 minutes", "over 45 minutes"],
                ["Free disk space", "over 35 percent", "under 18 percent"],
                ["Run time of a scan", "under 4 minutes", "over 15 minutes"],
            ],
            "A signal beyond its limit is entered in the log book with the time, the reading and the action. An "
            "operator who finds two signals beyond their limits at once calls the engineer on call.",
        ],
    ),
    (
        "Maintenance windows",
        [
            "Planned work is done on the second Tuesday of each month, from 21:30 to 23:00 UTC. Work that "
            "re-embeds the whole corpus is announced to the port offices five working days in advance.",
            "No planned work is done between 15 December and 6 January. During this winter freeze only repairs "
            "that restore service are allowed, and the duty manager signs each of them.",
            "Before a window the operator pauses the sensor, waits until no run is in progress, and takes a "
            "backup. After the window the operator starts the sensor and watches one complete scan of every "
            "source.",
        ],
    ),
    (
        "Backup and restore",
        [
            "The nightly backup of Harbour starts at 02:40 UTC. Copies are kept for 35 days on the storage in "
            "Hall C and for thirteen months on the tape library of the port secretariat.",
            "A restore is practised every quarter. The drill of 18 November 2025 restored 212 gigabytes and took "
            "47 minutes from the first command to the first correct search result.",
            "A restore counts as successful when the number of documents equals the number in the log book of "
            "the day of the backup and when the five control questions of the handbook find their documents.",
        ],
    ),
    (
        "Approvals",
        [
            "A mass change that was stopped by the guard is approved by two persons: the operator on duty and the "
            "owner of the source. Both names are written in the log book before the command is typed.",
            "A dead letter may be discarded by one operator when the owner of the document agrees. A change of "
            "the access groups of a source needs the signature of the data protection officer, who answers "
            "within two working days.",
            "Log books are kept for seven years in archive room 3.12.",
        ],
    ),
]


def handbook() -> bytes:
    """Return the handbook: one topic a page, text uncompressed so that every build has equal bytes."""
    from reportlab.lib import colors
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

    styles = getSampleStyleSheet()
    body, heading = styles["BodyText"], styles["Heading1"]
    body.fontSize, body.leading, body.spaceAfter = 11, 15, 9
    flow: list[Any] = []
    for number, (title, parts) in enumerate(HANDBOOK):
        flow += [PageBreak()] if number else []
        flow += [Paragraph(title, heading), Spacer(1, 8)]
        for part in parts:
            if isinstance(part, str):
                flow.append(Paragraph(part, body))
            else:
                grid = [("GRID", (0, 0), (-1, -1), 0.5, colors.grey), ("BACKGROUND", (0, 0), (-1, 0), colors.lightgrey)]
                flow += [Table(part, style=TableStyle(grid), hAlign="LEFT"), Spacer(1, 10)]

    def footer(canvas: Any, doc: Any) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(72, 40, f"Harbour Operations Handbook, edition 4, page {doc.page} of {len(HANDBOOK)}")

    out = io.BytesIO()
    document = SimpleDocTemplate(
        out, pagesize=A4, title="Harbour Operations Handbook", author=AUTHOR, invariant=1, pageCompression=0
    )
    document.build(flow, onFirstPage=footer, onLaterPages=footer)
    return out.getvalue()


# ── on-call guide: DOCX with heading levels, a list and a table ────────────────────────────────

ON_CALL: Sequence[tuple[str, Any]] = [
    ("h1", "Harbour On-call Guide"),
    (
        "p",
        "This guide is for the engineer who carries the Harbour pager. It says how fast to answer, whom to call, and "
        "what to hand over.",
    ),
    ("h2", "The rota"),
    (
        "p",
        "A turn lasts one week. The handover is on Wednesday at 10:00 local time, in a call of fifteen minutes. The "
        "rota has six engineers; a seventh, the relief, takes over when somebody falls ill.",
    ),
    (
        "p",
        "The primary acknowledges a page within 12 minutes. When nobody has acknowledged after 25 minutes the page "
        "goes to the secondary, and after 40 minutes to the head of operations.",
    ),
    ("h2", "Severity"),
    (
        "t",
        [
            ["Severity", "Meaning", "First answer", "Work continues"],
            ["S1", "Search returns documents to people who may not read them", "12 minutes", "day and night"],
            ["S2", "Search is unavailable in all port offices", "12 minutes", "day and night"],
            ["S3", "New documents are not found after 45 minutes", "2 hours", "until 22:00"],
            ["S4", "Single documents fail", "next working day", "working hours"],
        ],
    ),
    ("p", "A wrong permission is always S1, even when only one document is concerned."),
    ("h2", "During an incident"),
    ("l", "Open the incident channel and say who leads. The leader types no commands."),
    ("l", "Join the phone bridge, internal number 7 4410, conference code 5063."),
    ("l", "Write down each command before it is typed."),
    ("l", "Never delete RAG_HOME during an incident; move it aside and keep it until the review."),
    ("h2", "After an incident"),
    (
        "p",
        "The leader writes the review within three working days. A review names causes and measures, not persons. Each "
        "measure has an owner and a date, and the list of open measures is read in the Monday meeting.",
    ),
]


def on_call_guide() -> bytes:
    from docx import Document

    document = Document()
    core = document.core_properties
    core.title, core.author, core.created, core.modified = "Harbour On-call Guide", AUTHOR, STAMP, STAMP
    for kind, value in ON_CALL:
        if kind in ("h1", "h2"):
            document.add_heading(value, level=int(kind[1]))
        elif kind == "t":
            table = document.add_table(rows=0, cols=len(value[0]), style="Table Grid")
            for row in value:
                for cell, text in zip(table.add_row().cells, row, strict=True):
                    cell.text = text
        else:
            document.add_paragraph(value, style="List Bullet" if kind == "l" else None)
    return _repacked(document.save)


# ── architecture deck: PPTX with speaker notes ─────────────────────────────────────────────────

DECK: Sequence[tuple[str, Sequence[str], str]] = [
    (
        "Harbour: how the search is built",
        ["Architecture review, 24 February 2026", "Four sources, 186,000 documents, one index"],
        "Welcome. The review board meets twice a year, in February and in September.",
    ),
    (
        "Three hosts",
        [
            "quay-1 runs the Dagster web server, the daemon and the ledger database",
            "quay-2 runs ingestion: parsing, embedding and the index writer",
            "quay-3 is a warm spare that takes over from quay-2 within 20 minutes",
        ],
        "The spare was used once, on 9 October 2025, when quay-2 lost a power supply.",
    ),
    (
        "Why quay-2 has eight cores",
        [
            "Embedding uses most of the time of a first ingestion",
            "Six cores embed, two parse",
            "A complete re-embedding of Harbour takes 5 hours and 20 minutes",
        ],
        "The board asked for a graphics card. The answer was no: a complete re-embedding happens about once a year.",
    ),
    (
        "Sixteen buckets, for now",
        [
            "Harbour stays at 16 buckets until it holds 400,000 documents",
            "The change to 256 buckets is planned for the spring of 2027",
        ],
        "The change needs no new embedding, because vectors are stored by the hash of their text.",
    ),
    (
        "Decisions of the board",
        [
            "The index stays on local disks, not on the object store of the group",
            "Scanned berth plans are read by OCR, at most 60 pages each",
            "The next review takes place on 15 September 2026",
        ],
        "The limit of 60 pages was chosen because the longest berth plan in use has 52 pages.",
    ),
]


def architecture_deck() -> bytes:
    from pptx import Presentation

    deck = Presentation()
    core = deck.core_properties
    core.title, core.author, core.created, core.modified = DECK[0][0], AUTHOR, STAMP, STAMP
    core.last_modified_by = AUTHOR
    for title, bullets, notes in DECK:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text_frame.text = "\n".join(bullets)
        slide.notes_slide.notes_text_frame.text = notes
    return _repacked(deck.save)


# ── capacity planning: XLSX with four sheets ───────────────────────────────────────────────────

CAPACITY: dict[str, list[list[Any]]] = {
    "Growth": [
        ["Quarter", "Documents", "Chunks", "Blobs GB", "Index GB"],
        ["2025 Q1", 121400, 1092600, 88.4, 5.1],
        ["2025 Q2", 139800, 1258200, 101.9, 5.9],
        ["2025 Q3", 158300, 1424700, 115.2, 6.7],
        ["2025 Q4", 186000, 1674000, 135.6, 7.9],
        ["2026 Q2 forecast", 224000, 2016000, 163.0, 9.5],
        ["2026 Q4 forecast", 268000, 2412000, 195.1, 11.4],
    ],
    "Sources": [
        ["Source", "Owner", "Documents", "Changed per day", "Scanned share percent"],
        ["tariffs", "commercial office", 9200, 35, 2],
        ["safety-notices", "harbour master", 14800, 60, 11],
        ["berth-plans", "engineering", 31500, 20, 64],
        ["correspondence", "port secretariat", 130500, 410, 23],
    ],
    "Hosts": [
        ["Host", "Cores", "Memory GB", "Disk TB", "Bought"],
        ["quay-1", 4, 16, 1, "2024-03"],
        ["quay-2", 8, 32, 4, "2025-01"],
        ["quay-3", 8, 32, 4, "2025-01"],
    ],
    "Limits": [
        ["Limit", "Reached when", "What is done"],
        ["Disk of quay-2", "3.2 TB used, expected in 2029", "order two more disks six months before"],
        ["OCR time", "berth-plans above 45000 documents", "move OCR to the night hours"],
        ["Scan time", "correspondence above 300000 documents", "list it every 10 minutes instead of every 2"],
    ],
}


def capacity_plan() -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    book.properties.title, book.properties.creator = "Harbour capacity plan", AUTHOR
    book.properties.created = STAMP
    for name, rows in CAPACITY.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        sheet.column_dimensions["A"].width = 22
    return _repacked(book.save)


# ── status page and incident mail ──────────────────────────────────────────────────────────────

STATUS_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Harbour search status, March 2026</title>
<style>body { font-family: sans-serif; max-width: 44em } .ok { color: green }</style></head>
<body>
<nav><a href="#now">Now</a> <a href="#past">Past incidents</a></nav>
<h1>Harbour search status</h1>
<h2 id="now">Now</h2>
<p class="ok">All four sources are up to date. The last scan finished on 31 March 2026 at 16:52 UTC.</p>
<h2>Availability in March 2026</h2>
<table>
<tr><th>Service</th><th>Availability</th><th>Target</th></tr>
<tr><td>Search</td><td>99.94 %</td><td>99.8 %</td></tr>
<tr><td>Freshness of safety notices</td><td>99.71 %</td><td>99.5 %</td></tr>
<tr><td>Freshness of correspondence</td><td>98.20 %</td><td>98.0 %</td></tr>
</table>
<h2 id="past">Past incidents</h2>
<h3>19 March 2026: berth plans were late</h3>
<p>Between 06:10 and 08:35 UTC new berth plans were not found. The engineering office had renamed the folder
<code>plans/current</code> to <code>plans/2026</code>, and the mass-change guard stopped the scan because
38 percent of the documents seemed to be deleted. The change was approved at 08:20 UTC. No document was lost.</p>
<h3>3 March 2026: slow scans</h3>
<p>Scans took up to 26 minutes because a virus scanner read every file of the object store. The folder was
excluded from virus scanning on the same day.</p>
<script>document.title = "this text is not part of the page";</script>
</body>
</html>
"""

INCIDENT_MAIL = """Dear colleagues,

this is the summary of incident INC-2026-017 of 11 February 2026.

The embedding service of the group data centre did not answer from 13:05 to 14:18 UTC, that is for 73 minutes,
because a certificate had expired. Harbour stopped at the embedding stage and tried again. No document became a
dead letter, and nothing was deleted from the index. Deletions and changes of permissions were applied during the
outage. 126 changed documents waited; the last of them was searchable at 14:31 UTC.

Measure: the certificate is now renewed 30 days before it expires. Owner: Priya Raman. Date: 27 February 2026.

The attached time line was written during the incident.

Kind regards
Tomasz Wilk, engineer on call
"""

INCIDENT_TIMELINE = """13:05 UTC  embedding service refuses connections
13:09 UTC  page sent to the primary
13:16 UTC  acknowledged by Tomasz Wilk
13:31 UTC  data centre informed, ticket DC-88214
13:58 UTC  expired certificate found
14:18 UTC  new certificate in place, embedding resumes
14:31 UTC  backlog of 126 documents finished
"""


def incident_mail() -> bytes:
    from email.policy import SMTP

    message = EmailMessage(policy=SMTP.clone(max_line_length=200))
    message["Subject"] = "Summary of incident INC-2026-017: embedding service down for 73 minutes"
    message["From"] = "Tomasz Wilk <tomasz.wilk@harbour.example>"
    message["To"] = "Harbour operators <operators@harbour.example>"
    message["Date"] = "Thu, 12 Feb 2026 09:30:00 +0000"
    message["Message-ID"] = "<inc-2026-017@harbour.example>"
    message.set_content(INCIDENT_MAIL)
    message.add_attachment(INCIDENT_TIMELINE, filename="timeline-INC-2026-017.txt")
    message.set_boundary("=_harbour_incident_017")
    return message.as_bytes()


# ── scanned page: a PDF that holds only an image ───────────────────────────────────────────────

ACCESS_NOTICE: Sequence[tuple[int, str]] = [
    (58, "NORTHERN PORTS GROUP"),
    (44, "Notice to all staff"),
    (44, "Access to machine room B-14"),
    (0, ""),
    (34, "Issued on 2 June 1997 by the port engineer, H. Lindqvist."),
    (0, ""),
    (34, "1. The key of machine room B-14 is kept by the night porter."),
    (34, "    It is handed out against signature in the green book."),
    (34, "2. Nobody enters the room alone between 20:00 and 06:00."),
    (34, "3. The gas alarm is tested on the first Monday of the month."),
    (34, "    Leave the room when the horn sounds twice."),
    (34, "4. Visitors are announced one day ahead on extension 2291."),
    (34, "5. Tapes leave the room only in the red transport case."),
    (0, ""),
    (34, "Breaches are reported to the port engineer in writing."),
    (34, "This notice replaces the notice of 14 March 1989."),
]


def access_notice() -> bytes:
    """Return one A4 page at 200 dpi: text drawn as pixels, turned by one degree, with slight noise."""
    import reportlab
    from PIL import Image, ImageDraw, ImageFont
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    width, height = 1654, 2339
    page = Image.new("L", (width, height), 247)
    draw = ImageDraw.Draw(page)
    fonts = Path(reportlab.__file__).parent / "fonts"
    y = 230
    for size, text in ACCESS_NOTICE:
        if text:
            face = "VeraBd.ttf" if size > 40 else "Vera.ttf"
            draw.text((190, y), text, fill=38, font=ImageFont.truetype(str(fonts / face), size))
        y += round(size * 1.9) or 46
    page = page.rotate(1, resample=Image.Resampling.BICUBIC, fillcolor=247)
    noise = Image.frombytes("L", (width // 2, height // 2), random.Random(1997).randbytes((width // 2) * (height // 2)))
    page = Image.blend(page, noise.resize((width, height), Image.Resampling.BILINEAR), 0.05)
    jpeg = io.BytesIO()
    page.save(jpeg, "JPEG", quality=55, dpi=(200, 200))

    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1, pageCompression=0)
    canvas.setTitle("scan0042")
    jpeg.seek(0)
    canvas.drawImage(ImageReader(jpeg), 0, 0, *A4)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


# ── broken files ───────────────────────────────────────────────────────────────────────────────


def truncated_pdf() -> bytes:
    """Return the first bytes of the handbook: a header and fonts, but no page."""
    return handbook()[:700]


def password_pdf() -> bytes:
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.pdfgen.canvas import Canvas

    out = io.BytesIO()
    lock = StandardEncryption("only the owner knows", ownerPassword="nor the operator", strength=128)
    canvas = Canvas(out, invariant=1, pageCompression=0, encrypt=lock)
    canvas.drawString(72, 720, "Nobody reads this sentence without the password.")
    canvas.save()
    return out.getvalue()


def renamed_archive() -> bytes:
    def save(out: io.BytesIO) -> None:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("readme.txt", "This is an ordinary archive with the name of a Word document.\n")

    return _repacked(save)


def nul_bytes() -> bytes:
    return b"\0" * 4096


def _repacked(save: Callable[[io.BytesIO], object]) -> bytes:
    """Save an office document and repack it: fixed order, time stamps and modification date."""
    raw, out = io.BytesIO(), io.BytesIO()
    save(raw)
    stamp = STAMP.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    with zipfile.ZipFile(raw) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for name in sorted(old.namelist(), key=lambda n: (n != "[Content_Types].xml", n)):
            data = old.read(name)
            if name == "docProps/core.xml":
                data = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>" + stamp, data)
            info = zipfile.ZipInfo(name, STAMP.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o644 << 16
            new.writestr(info, data)
    return out.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "handouts/operations-handbook.pdf": handbook,
    "handouts/on-call-guide.docx": on_call_guide,
    "handouts/architecture-deck.pptx": architecture_deck,
    "handouts/capacity-plan.xlsx": capacity_plan,
    "handouts/status-page.html": STATUS_PAGE.encode,
    "handouts/incident-2026-017.eml": incident_mail,
    "handouts/access-notice-scan.pdf": access_notice,
    "broken/truncated.pdf": truncated_pdf,
    "broken/password-protected.pdf": password_pdf,
    "broken/renamed-archive.docx": renamed_archive,
    "broken/only-nul-bytes.txt": nul_bytes,
}


if __name__ == "__main__":
    for written in build(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE):
        print(f"{written.stat().st_size:>9,} bytes  {written}")
