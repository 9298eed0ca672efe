"""Ask the running agent: the JSON questions of pycni.agent.api over its socket."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from pycni.agent.api import NAME
from pycni.agent.config import DEFAULT_SOCKET
from pycni.cli.failure import FAILED, NOT_FOUND, Failure
from pycni.cni.errors import CniError
from pycni.exe.wire import Request, decode_answer, encode_request

SOCKET_VARIABLE = "PYCNI_SOCKET"  # the launchers obey it too
TIMEOUT_S = 60.0  # longer than the agent holds back an answer to `events`


class NoAgent(Failure):
    """Nobody answers at the socket."""


def socket_path(given: str | None = None) -> str:
    """Where the agent listens: as *given*, else PYCNI_SOCKET, else the default."""
    return given or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET


def ask(method: str, path: str | None = None, *, timeout_s: float = TIMEOUT_S, **question: Any) -> Any:
    """The agent's answer to a question.

    NoAgent (exit code 3) where none listens, Failure with the agent's own code where it refuses or does not answer,
    PermissionError where the socket may not be reached.
    """
    where = socket_path(path)
    request = Request(NAME, (), json.dumps({"method": method, **question}).encode())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        _connect(connection, where)
        try:
            data = _exchange(connection, encode_request(request))
            answer = decode_answer(data)
        except TimeoutError:
            raise _silent(where, f"no answer within {timeout_s:g} s") from None
        except (OSError, CniError) as failure:
            raise _silent(where, str(failure)) from None
    said = json.loads(answer.stdout)
    if answer.code == 0:
        return said
    raise Failure(said["msg"], exit_code=FAILED, code=said["code"], details=said.get("details", ""))


def _connect(connection: socket.socket, where: str) -> None:
    try:
        connection.connect(where)
    except (FileNotFoundError, ConnectionRefusedError):
        step = "start one with `pycni agent`, or install its units with `pycni install --systemd`"
        raise NoAgent(f"no agent runs at {where}", exit_code=NOT_FOUND, next_step=step) from None
    except PermissionError as failure:
        raise PermissionError(failure.errno, failure.strerror, where) from None
    except OSError as failure:
        raise _silent(where, str(failure)) from None


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    try:
        connection.sendall(request)
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before the end; the answer says why
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass  # the agent closed with a part of the question unread; what it had sent has arrived
    return b"".join(parts)


def _silent(where: str, reason: str) -> Failure:
    step = "`journalctl -u pycni-agent` or its standard error may say more"
    return Failure(f"the agent at {where} gave no answer", code=11, details=reason, next_step=step)
