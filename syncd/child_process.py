"""Runs a command with a body on its standard input, within a time, and without a shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

KILL_LIMIT_S = 2.0


class CommandFailed(Exception):
    """Why a command did not take its input; it repeats no argument and no output."""


async def run(
    command: Sequence[str], body: bytes, *, limit_s: float, environ: Mapping[str, str]
) -> None:
    """Return once a command has ended 0; raises CommandFailed.

    The command is the leader of a process group, which is killed after `limit_s` and when this is
    cancelled. Its output may contain anything, and is dropped.
    """
    try:
        stdin = _file_in_memory(body)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                # A new process group, so that its children can be killed with it.
                start_new_session=True,
                env=environ,
            )
        finally:
            os.close(stdin)
    except (OSError, ValueError) as error:
        # ValueError: an argument that this locale cannot write.
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CommandFailed(f"cannot be run: {reason}") from None
    try:
        async with asyncio.timeout(limit_s):
            await process.wait()
    except TimeoutError:
        raise CommandFailed(f"did not end within {limit_s:g} s") from None
    finally:
        if process.returncode is None:
            await _kill(process)
    if process.returncode:
        raise CommandFailed(f"ended {process.returncode}")


def _file_in_memory(body: bytes) -> int:
    """Return the descriptor of a file with a body.

    With a pipe, uvloop raises RuntimeError if the command ends before it has read everything.
    """
    fd = os.memfd_create("stdin")
    with open(fd, "wb", closefd=False) as file:
        file.write(body)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a running command and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # The process stays while the kernel waits for a disk that does not answer.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_LIMIT_S):
            await process.wait()
