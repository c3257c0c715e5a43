"""Fuzz for as long as you like, guided by coverage; atheris is no dependency of ours.

pip install --target /tmp/atheris atheris
PYTHONPATH=/tmp/atheris nice -n 10 python tests/fuzzing/atheris_run.py CORPUS -max_total_time=1800
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if not __package__:
    # Started by its path; a test finds the package through pytest's `pythonpath`.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

SEPARATOR = b"\x00\x1e\x00"


def main() -> None:
    """Fuzz; a crash is written into a file that the message names."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["syncd"]):
        from fuzzing.one_body import Mirror  # noqa: PLC0415 - instrumented while it is imported
    mirror = Mirror()

    def one(data: bytes) -> None:
        """Take a header and one or several bodies from the bytes of the fuzzer."""
        header, *bodies = data.split(SEPARATOR)
        mirror.check(header, *(bodies or [header])[:4])

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


def seeds(folder: Path) -> None:
    """Write the payload files of the tests as the first corpus."""
    from payloads import PAYLOADS, body_at  # noqa: PLC0415 - only here

    for path in PAYLOADS:
        body = body_at(path)
        (folder / path.stem).write_bytes(SEPARATOR.join((b"0" * 64, body, body)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--seeds"]:
        seeds(Path(sys.argv[2]))
    else:
        main()
