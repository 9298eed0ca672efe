"""Programs that a lab starts and waits for."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from pycni.lab.errors import LabError


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
            out, err = process.communicate(input, timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise LabError(f"{where}: `{words}` did not end within {timeout_s:g} s") from None
        except BaseException:
            process.kill()
            raise
    if check and process.returncode:
        said = (out + err).strip().splitlines()
        raise LabError(f"{where}: `{words}` failed with exit code {process.returncode}", said)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)
