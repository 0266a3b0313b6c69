"""LibreOffice, where it is installed, as a converter of old formats. Its absence or failure is never an
error: the caller has a reader of its own or says what to install."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

# Parser processes have an empty environment, so PATH cannot be asked.
_PLACES: Final = (
    "/usr/bin", "/usr/local/bin", "/bin", "/usr/lib/libreoffice/program", "/usr/lib64/libreoffice/program",
    "/opt/homebrew/bin", "/snap/bin", "/Applications/LibreOffice.app/Contents/MacOS",
)  # fmt: skip
_NAMES: Final = ("soffice", "libreoffice")
_MAX_OUTPUT_BYTES: Final = 500_000_000


@functools.cache
def find() -> str | None:
    """Return the program's path, or None."""
    places = [*_PLACES, *(str(p) for p in sorted(Path("/opt").glob("libreoffice*/program")))]
    for name in _NAMES:
        found = shutil.which(name, path=os.pathsep.join(places))
        if found is not None:
            return found
    return None


def convert(data: bytes, suffix: str, to: str, timeout_s: float) -> bytes | None:
    """Convert a document, or return None when that failed or took too long.

    Args:
        suffix: of the document, with the dot.
        to: target format, such as ``docx``.
    """
    program = find()
    if program is None:
        return None
    with tempfile.TemporaryDirectory(prefix="soffice-") as name:
        folder = Path(name)
        source = folder / f"document{suffix}"
        source.write_bytes(data)
        # its own profile: two instances with one profile wait for each other; -env needs a URL
        command = [
            program, f"-env:UserInstallation={(folder / 'profile').as_uri()}", "--headless", "--norestore", "--nologo",
            "--nodefault", "--nolockcheck", "--convert-to", to, "--outdir", str(folder / "out"), str(source),
        ]  # fmt: skip
        environment = {
            "HOME": name,
            "TMPDIR": name,
            "PATH": os.pathsep.join(_PLACES),
            "LC_ALL": "C.UTF-8",
            "SAL_USE_VCLPLUGIN": "svp",
        }
        try:
            subprocess.run(
                command,
                env=environment,
                cwd=name,
                timeout=timeout_s,
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            target = folder / "out" / f"document.{to}"
            return target.read_bytes() if 0 < target.stat().st_size <= _MAX_OUTPUT_BYTES else None
        except (OSError, subprocess.SubprocessError):
            return None
