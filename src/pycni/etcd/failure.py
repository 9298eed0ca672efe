"""How one attempt at one endpoint can fail; `client.Client` decides what becomes of it."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code

# google.golang.org/grpc/codes: the gateway has them in its error objects, gRPC as statuses.
CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 1, 2, 3, 4, 7, 8
FAILED_PRECONDITION, OUT_OF_RANGE, UNAVAILABLE, UNAUTHENTICATED = 9, 11, 14, 16

#: etcd says so of authentication: where a token has ended (a restart forgets it; so does time), or none was sent.
TOKEN_ENDED = "invalid auth token"
NO_USER = "user name is empty"
AUTH_OFF = "authentication is not enabled"
AUTH_FAILED = "authentication failed"  # no such user, or another password
#: etcd passes errors of its own contexts on as they are, without a status of their own.
_PASSING = ("leader", "timed out", "timeout", "context deadline exceeded", "context canceled")


class Unreachable(Exception):
    """No answer: the endpoint is not there, too slow, or not part of a majority.

    *sent*: whether the request may have been carried out, or may yet be.
    """

    def __init__(self, reason: str, *, sent: bool = True) -> None:
        super().__init__(reason)
        self.sent = sent


class Rejected(Exception):
    """etcd's answer is no. *code* is a gRPC status, *text* its sentence; the request was not carried out."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class NoGateway(Exception):
    """This server has no JSON gateway, or none for us: it does not pass on the name in a client's certificate, and
    where authentication is on refuses every certificate that has one. Such a user needs gRPC."""


class NotInstalled(CniError):
    """The `etcd3` package, or what it needs, is not there."""

    def __init__(self, name: str) -> None:
        step = "install pycni with its extra: pip install 'pycni[etcd]'"
        super().__init__(Code.INVALID_CONFIG, f"etcd is configured, but {name} is not installed", step)


def sort_out(code: int, text: str) -> Exception:
    """The failure that a gRPC status means to us. etcd has no leader for a moment, was overtaken by a new one, timed
    out inside, or has more to do than it takes on: another attempt is right. All else would be refused again."""
    if code == UNAVAILABLE and "connect" in text and "reset" not in text.lower():
        return Unreachable(text, sent=False)  # gRPC: "failed to connect to all addresses; …"
    if code in (UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED):
        return Unreachable(text)
    if code == UNKNOWN and any(one in text for one in _PASSING):
        return Unreachable(text)
    if code == RESOURCE_EXHAUSTED and "too many requests" in text:
        return Unreachable(text, sent=False)
    return Rejected(code, text)
