"""What launcher and agent say to each other: one request, one answer, on a Unix stream socket. docs/launcher.md.

A request is the magic, then records (a length of four bytes, little-endian, and that many bytes): the executable's
path, every string of the environment, an empty record, stdin in chunks, an empty record. An answer is exit code and the
sizes of stdout and stderr, four bytes each, then both. Everything is bytes: neither paths nor environments are text.
"""

from __future__ import annotations

import struct

from pycni.cni.conf import MAX_BYTES
from pycni.cni.errors import CniError, Code
from pycni.cni.value import Value

MAGIC = b"PYCNI\x01\n\0"  # the sixth byte counts versions of this protocol
EXECUTABLE_LIMIT = 4096  # bytes: PATH_MAX (linux/limits.h)
STRING_LIMIT = 128 * 1024  # of one environment string: MAX_ARG_STRLEN (linux/binfmts.h)
ENVIRONMENT_LIMIT = 1024 * 1024  # of all of them; the kernel would allow 6 MiB
CHUNK_LIMIT = 64 * 1024
STDIN_LIMIT = MAX_BYTES
ANSWER_LIMIT = 32 * 1024 * 1024  # stdout and stderr together

_SIZE = struct.Struct("<I")
_HEAD = struct.Struct("<III")


class Request(Value):
    """One call of a plugin. *environment* has the strings as the kernel had them: any bytes, doubled keys, no `=`."""

    executable: bytes
    environment: tuple[bytes, ...] = ()
    stdin: bytes = b""

    def environ(self) -> dict[str, str]:
        """The environment as `os.environ` would show it: of doubled keys the first, of strings without `=` none."""
        found: dict[str, str] = {}
        for string in self.environment:
            key, equals, value = string.partition(b"=")
            if equals:
                found.setdefault(_text(key), _text(value))
        return found

    def path(self) -> str:
        """The executable's path, as `sys.argv[0]` would show it."""
        return _text(self.executable)


class Answer(Value):
    """What the launcher writes, and its exit code, 0 to 255."""

    code: int
    stdout: bytes = b""
    stderr: bytes = b""


def encode_request(request: Request) -> bytes:
    """The request as a launcher sends it. Empty strings of the environment are left out; no limit is checked."""
    parts = [MAGIC, _record(request.executable)]
    parts += [_record(string) for string in request.environment if string]
    parts.append(_record(b""))
    stdin = request.stdin
    parts += [_record(stdin[at : at + CHUNK_LIMIT]) for at in range(0, len(stdin), CHUNK_LIMIT)]
    parts.append(_record(b""))
    return b"".join(parts)


def decode_request(data: bytes) -> Request:
    """The request that *data* is, all of it; CniError 4, 5 or 6 as from `RequestParser`."""
    parser = RequestParser()
    request = parser.feed(data)
    return request if request is not None else parser.end()


class RequestParser:
    """Makes a request from bytes as they arrive, and holds at most a little more than the limits."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._received = 0
        self._step = self._take_magic
        self._executable = b""
        self._environment: list[bytes] = []
        self._environment_size = 0
        self._stdin = bytearray()
        self._request: Request | None = None

    def feed(self, data: bytes) -> Request | None:
        """The request once it is complete. After an error the connection is to be answered and closed.

        CniError 4 where the environment is too large; 6 where stdin is, or where this is no request.
        """
        self._held += data
        self._received += len(data)
        while self._request is None and self._step():
            pass
        if self._request is not None and self._held:
            raise CniError(Code.DECODE, f"{len(self._held)} bytes follow the end of the request")
        return self._request

    def end(self) -> Request:
        """To be called when the launcher has closed its side; CniError 5 if the request was not complete by then."""
        if self._request is None:
            raise CniError(Code.IO, f"the launcher ended {self._received} bytes into its request")
        return self._request

    # Each step takes one thing from what is held and says whether it was all there.

    def _take_magic(self) -> bool:
        head = bytes(self._held[: len(MAGIC)])
        if not MAGIC.startswith(head):
            raise CniError(Code.DECODE, f"this is no request of a pycni launcher of protocol version {MAGIC[5]}")
        if len(head) < len(MAGIC):
            return False
        del self._held[: len(MAGIC)]
        self._step = self._take_executable
        return True

    def _take_executable(self) -> bool:
        record = self._take_record(EXECUTABLE_LIMIT, Code.DECODE, "the executable's path")
        if record == b"":
            raise CniError(Code.DECODE, "the request names no executable")
        if record is None:
            return False
        self._executable = record
        self._step = self._take_string
        return True

    def _take_string(self) -> bool:
        record = self._take_record(STRING_LIMIT, Code.ENVIRONMENT, "a string of the environment")
        if record:
            self._environment_size += len(record)
            if self._environment_size > ENVIRONMENT_LIMIT:
                raise CniError(Code.ENVIRONMENT, f"the environment is larger than {ENVIRONMENT_LIMIT} bytes")
            self._environment.append(record)
        elif record is not None:
            self._step = self._take_chunk
        return record is not None

    def _take_chunk(self) -> bool:
        record = self._take_record(CHUNK_LIMIT, Code.DECODE, "a part of stdin")
        if record:
            self._stdin += record
            if len(self._stdin) > STDIN_LIMIT:
                raise CniError(Code.DECODE, f"the network config on stdin is longer than {STDIN_LIMIT} bytes")
        elif record is not None:
            self._request = Request(self._executable, tuple(self._environment), bytes(self._stdin))
        return record is not None

    def _take_record(self, limit: int, code: int, what: str) -> bytes | None:
        if len(self._held) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._held)
        if size > limit:  # before its bytes have come: they need not be held
            raise CniError(code, f"{what} is {size} bytes long, more than {limit}")
        end = _SIZE.size + size
        if len(self._held) < end:
            return None
        record = bytes(self._held[_SIZE.size : end])
        del self._held[:end]
        return record


def encode_answer(answer: Answer) -> bytes:
    """The answer as the launcher reads it; CniError 999 for one that it would not believe."""
    size = len(answer.stdout) + len(answer.stderr)
    if not 0 <= answer.code <= 255 or size > ANSWER_LIMIT:
        limits = f"the limits are 255 and {ANSWER_LIMIT}"
        raise CniError(Code.INTERNAL, f"exit code {answer.code} with {size} bytes is no answer to a launcher", limits)
    return _HEAD.pack(answer.code, len(answer.stdout), len(answer.stderr)) + answer.stdout + answer.stderr


def decode_answer(data: bytes) -> Answer:
    """The answer that *data* is, all of it; CniError 6 if it is none."""
    if len(data) >= _HEAD.size:
        code, out_size, err_size = _HEAD.unpack_from(data)
        split = _HEAD.size + out_size
        if code <= 255 and out_size + err_size <= ANSWER_LIMIT and len(data) == split + err_size:
            return Answer(code, data[_HEAD.size : split], data[split:])
    raise CniError(Code.DECODE, f"{len(data)} bytes that are no answer of a pycni agent")


def _record(data: bytes) -> bytes:
    return _SIZE.pack(len(data)) + data


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
