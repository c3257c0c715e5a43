"""Memory of the process: the C library keeps freed memory until a program requests its return."""

from __future__ import annotations

import ctypes


def release() -> None:
    """Return freed memory to the system, where the C library can do that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
