"""Run another CNI plugin as the specification says ("Plugin Delegation"), without `subprocess` (8 ms to import)."""

from __future__ import annotations

import errno
import os
import stat
import time

from pycni.cni import json_text
from pycni.cni.errors import CniError, Code, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_SIGPIPE = 13  # `import signal` would be half a millisecond
_BUSY_RETRIES_S = (0.01, 0.05, 0.2, 1.0)  # a plugin that is just being installed


def find(name: str, path: Sequence[str]) -> str:
    """The executable *name* in the directories *path*: the first regular file, symlinks followed.

    CniError 7 for a name that is no file name or is in none of them.
    """
    if not name:
        raise CniError(Code.INVALID_CONFIG, "no plugin name provided")
    if "/" in name:
        raise CniError(Code.INVALID_CONFIG, f"invalid plugin name: {shown(name)} is not the name of a file")
    for directory in path:
        candidate = f"{directory}/{name}"
        try:
            if stat.S_ISREG(os.stat(candidate).st_mode):
                return candidate
        except (OSError, ValueError):
            continue
    raise CniError(
        Code.INVALID_CONFIG, f"failed to find plugin {shown(name)} in path [{' '.join(path)}]", "CNI_PATH names these"
    )


def run_plugin(executable: str, command: str, environ: Iterable[tuple[str, str]], stdin: bytes) -> Any:
    """Run *executable* for the CNI *command*; its answer on stdout as decoded JSON, None if it gave none.

    *environ* goes on as it is but for CNI_COMMAND, *stdin* unchanged, its stderr to ours. CniError with the code,
    message and details of the plugin's own error, or INTERNAL for an answer that is none; OSError if it cannot be run.
    """
    environment = {**dict(environ), "CNI_COMMAND": command}
    exit_status, out = _run(executable, environment, stdin)
    try:
        answer = json_text.loads(out.decode()) if out.strip() else None
    except (ValueError, RecursionError):
        raise CniError(
            Code.INTERNAL, f"plugin {executable} answered {command} with something that is not JSON", _excerpt(out)
        ) from None
    if exit_status == 0:
        return answer
    if not isinstance(answer, dict) or not _is_error(answer):
        how = f"exit status {exit_status}" if exit_status > 0 else f"signal {-exit_status}"
        raise CniError(
            Code.INTERNAL,
            f"plugin {executable} failed at {command} without a CNI error ({how})",
            _excerpt(out) if out else "it may have said why on stderr",
        )
    raise CniError(answer.get("code") or Code.INTERNAL, answer.get("msg") or "", answer.get("details") or "")


def _is_error(answer: dict[str, Any]) -> bool:
    kinds = {"code": int, "msg": str, "details": str}
    return ("code" in answer or "msg" in answer) and all(
        answer.get(key) is None or type(answer[key]) is kind for key, kind in kinds.items()
    )


def _run(executable: str, environment: dict[str, str], stdin: bytes) -> tuple[int, bytes]:
    # A file in memory instead of a pipe: the config can be longer than a pipe holds, and nobody has to feed it.
    given = os.memfd_create("cni-config", os.MFD_CLOEXEC)
    try:
        with open(given, "wb", closefd=False) as file:
            file.write(stdin)
        os.lseek(given, 0, os.SEEK_SET)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        try:
            pid = _spawn(executable, environment, given, out_write)
        except BaseException:
            os.close(out_read)
            raise
        finally:
            os.close(out_write)
    finally:
        os.close(given)
    with open(out_read, "rb") as file:
        out = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), out


def _spawn(executable: str, environment: dict[str, str], stdin: int, stdout: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    for pause in (*_BUSY_RETRIES_S, None):
        try:
            # Python ignores SIGPIPE, and an ignored signal would stay so in the plugin.
            return os.posix_spawn(executable, [executable], environment, file_actions=actions, setsigdef=[_SIGPIPE])
        except OSError as exc:
            if exc.errno != errno.ETXTBSY or pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("unreachable: the last round returns or raises")


def _excerpt(out: bytes) -> str:
    return f"stdout was {shown(out.decode(errors='replace'))}"
