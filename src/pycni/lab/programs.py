"""Programs that a lab starts and waits for."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from pycni.lab.errors import LabError

LOOK_S = 0.1  # how long the end of a program may go unnoticed whose outputs others have, too
_READ_BYTES = 65536


class StillRunsError(LabError):
    """The program had not ended in time; it was killed."""


def piped(command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start *command* with pipes to its input and both outputs, for `finished`."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace", env=env)


def finished(
    process: subprocess.Popen[str],
    where: str,
    argv: Sequence[str],
    *,
    input: str,
    check: bool,
    timeout_s: float | None,
) -> subprocess.CompletedProcess[str]:
    """*process*, once it has read *input* and ended. LabError with *where*, *argv* and both outputs where it fails."""
    words = " ".join(argv)
    with process:
        try:
            out, err = _outputs(process, input, timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise StillRunsError(f"{where}: `{words}` did not end within {timeout_s:g} s") from None
        except BaseException:
            process.kill()
            raise
    if check and process.returncode:
        said = (out + err).strip().splitlines()
        raise LabError(f"{where}: `{words}` failed with exit code {process.returncode}", said)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def _outputs(process: subprocess.Popen[str], input: str, timeout_s: float | None) -> tuple[str, str]:
    """What it wrote until it ended. What it left in the background (`server &`) may have its outputs open still, which
    `communicate` alone would wait for."""
    end = None if timeout_s is None else time.monotonic() + timeout_s
    more: str | None = input
    while True:
        ended = process.poll() is not None  # before the look: all that it wrote is seen in it
        left_s = LOOK_S if end is None else min(LOOK_S, end - time.monotonic())
        try:
            return process.communicate(more, max(left_s, 0.0))
        except subprocess.TimeoutExpired as late:
            if ended:
                _leave_open(process)
                return _text(late.output), _text(late.stderr)
            if end is not None and time.monotonic() >= end:
                raise
            more = None  # it has been taken


def _text(written: bytes | str | None) -> str:
    """Of an exception, which has bytes whatever the pipe is (subprocess.TimeoutExpired)."""
    return written.decode(errors="replace") if isinstance(written, bytes) else written or ""


def _leave_open(process: subprocess.Popen[str]) -> None:
    """What is written from now on is nobody's, and no error to who writes it."""
    for stream in (process.stdout, process.stderr):
        if stream is not None and not stream.closed:
            threading.Thread(target=_drain, args=(stream,), name="drain", daemon=True).start()
    process.stdout = process.stderr = None


def _drain(stream: IO[str]) -> None:
    with stream:
        while stream.buffer.raw.read(_READ_BYTES):  # type: ignore[attr-defined]
            pass
