"""The wire between launcher and agent: what goes in comes out, and whatever else arrives is refused in words."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.errors import CniError, Code
from pycni.exe import client, wire
from pycni.exe.wire import Answer, Request, RequestParser, decode_answer, decode_request, encode_answer, encode_request

no_nul = st.binary(min_size=1, max_size=300).map(lambda data: data.replace(b"\0", b"\1"))
requests = st.builds(
    Request,
    executable=no_nul,
    environment=st.lists(no_nul, max_size=20).map(tuple),
    stdin=st.one_of(st.binary(max_size=500), st.binary(min_size=1, max_size=9).map(lambda data: data * 20_000)),
)
answers = st.builds(Answer, code=st.integers(0, 255), stdout=st.binary(max_size=500), stderr=st.binary(max_size=500))


def refusal(data: bytes) -> CniError:
    with pytest.raises(CniError) as failure:
        decode_request(data)
    return failure.value


@given(requests)
def test_request_comes_out_as_it_went_in(request: Request) -> None:
    """Any bytes without NUL as path and environment, any bytes at all as stdin, of any length."""
    assert decode_request(encode_request(request)) == request


@given(requests, st.data())
def test_request_may_arrive_in_any_pieces(request: Request, data: st.DataObject) -> None:
    """A stream socket keeps no boundaries; the request is there with its last byte, and not before."""
    encoded = encode_request(request)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded) - 1), max_size=6)))
    parser = RequestParser()
    for start, end in zip([0, *cuts], cuts, strict=False):
        assert parser.feed(encoded[start:end]) is None
    assert parser.feed(encoded[cuts[-1] if cuts else 0 :]) == request
    assert parser.end() == request


@given(requests, st.data())
def test_incomplete_request_is_no_request(request: Request, data: st.DataObject) -> None:
    """Where the launcher died the agent knows how far it got, and has nothing to act on."""
    encoded = encode_request(request)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    failure = refusal(encoded[:cut])
    assert (failure.code, failure.msg) == (Code.IO, f"the launcher ended {cut} bytes into its request")


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda data: wire.MAGIC + data)))
def test_any_bytes_are_a_request_or_an_error(data: bytes) -> None:
    """Nothing else escapes the parser, whoever writes to the socket."""
    code = None
    try:
        assert decode_request(data).executable
    except CniError as failure:
        code = failure.code
    assert code in (None, Code.ENVIRONMENT, Code.IO, Code.DECODE)


def test_foreign_protocol_is_refused_at_its_first_byte() -> None:
    """The agent need not wait for eight bytes of somebody who sends three."""
    parser = RequestParser()
    with pytest.raises(CniError, match="no request of a pycni launcher of protocol version 1") as failure:
        parser.feed(b"{")
    assert failure.value.code == Code.DECODE


@pytest.mark.parametrize(
    ("before", "size", "code"),
    [
        (b"", wire.EXECUTABLE_LIMIT + 1, Code.DECODE),
        (b"\1\0\0\0x", wire.STRING_LIMIT + 1, Code.ENVIRONMENT),
        (b"\1\0\0\0x\0\0\0\0", wire.CHUNK_LIMIT + 1, Code.DECODE),
        (b"", 2**32 - 1, Code.DECODE),
    ],
)
def test_too_long_a_record_is_refused_by_its_length(before: bytes, size: int, code: int) -> None:
    """The bytes themselves are never waited for, so nobody makes the agent hold 4 GiB."""
    parser = RequestParser()
    with pytest.raises(CniError, match=f"{size} bytes long, more than") as failure:
        parser.feed(wire.MAGIC + before + size.to_bytes(4, "little"))
    assert failure.value.code == code


def test_environment_has_a_limit_in_all() -> None:
    """Exactly the limit passes, one byte more is error 4, as any environment that cannot be accepted."""
    most = Request(b"x", (b"y" * wire.STRING_LIMIT,) * (wire.ENVIRONMENT_LIMIT // wire.STRING_LIMIT))
    assert decode_request(encode_request(most)) == most
    failure = refusal(encode_request(most.replace(environment=(*most.environment, b"z"))))
    assert (failure.code, failure.msg) == (Code.ENVIRONMENT, "the environment is larger than 1048576 bytes")


def test_stdin_has_the_limit_of_a_network_config() -> None:
    """Exactly the limit passes, one byte more is the error that standalone plugins give."""
    most = Request(b"x", (), b"y" * wire.STDIN_LIMIT)
    assert decode_request(encode_request(most)) == most
    failure = refusal(encode_request(most.replace(stdin=most.stdin + b"z")))
    assert (failure.code, failure.msg) == (Code.DECODE, "the network config on stdin is longer than 16777216 bytes")


def test_nothing_may_follow_a_request() -> None:
    """One connection is one call."""
    assert refusal(encode_request(Request(b"x")) + b"more").msg == "4 bytes follow the end of the request"


def test_executable_has_a_name() -> None:
    """The name says which plugin is meant."""
    assert refusal(encode_request(Request(b""))).msg == "the request names no executable"


def test_environment_reads_as_os_environ_would() -> None:
    """Of doubled keys the first counts, strings without `=` are no variables, and bytes become surrogates."""
    request = Request(b"/bin/\xff", (b"A=1", b"A=2", b"B", b"C=\xfe=x", b"=D"))
    assert request.environ() == {"A": "1", "C": "\udcfe=x", "": "D"}
    assert request.path() == "/bin/\udcff"


def test_empty_strings_of_the_environment_are_left_out() -> None:
    """execve allows them, nobody can read them, and on the wire they would end the environment."""
    assert decode_request(encode_request(Request(b"x", (b"", b"A=1", b"")))).environment == (b"A=1",)


@given(answers)
def test_answer_comes_out_as_it_went_in(answer: Answer) -> None:
    """Any exit code and any bytes on both outputs."""
    assert decode_answer(encode_answer(answer)) == answer


@given(st.one_of(st.binary(max_size=60), answers.map(encode_answer).map(lambda data: data[:-1])))
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    """An incomplete answer is none."""
    code = None
    try:
        assert encode_answer(decode_answer(data)) == data
    except CniError as failure:
        code = failure.code
    assert code in (None, Code.DECODE)


@pytest.mark.parametrize("answer", [Answer(256), Answer(-1), Answer(0, b"x" * wire.ANSWER_LIMIT, b"x")])
def test_answer_that_no_launcher_would_believe_is_not_sent(answer: Answer) -> None:
    """The agent finds it out while it can still answer something else."""
    with pytest.raises(CniError, match="is no answer to a launcher") as failure:
        encode_answer(answer)
    assert failure.value.code == Code.INTERNAL


def test_both_sides_agree_on_the_constants() -> None:
    """The Python launcher has its own, because importing wire.py would cost it json."""
    assert (client.MAGIC, client.CHUNK, client.ANSWER_LIMIT) == (wire.MAGIC, wire.CHUNK_LIMIT, wire.ANSWER_LIMIT)
    assert (client.IO, client.TRY_AGAIN) == (Code.IO, Code.TRY_AGAIN)


def test_python_launcher_imports_nothing_else() -> None:
    """Before it knows whether there is an agent, it loads only what is in the interpreter or a socket's need."""
    code = "import sys; before = set(sys.modules); sys.path.append(sys.argv[1]); import pycni.exe.client; {}"
    show = "print(sorted(set(sys.modules) - before))"
    command = [sys.executable, "-ISE", "-c", code.format(show), str(Path(__file__).parents[2] / "src")]
    loaded = ast.literal_eval(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert set(loaded) <= {"_socket", "pycni", "pycni.exe", "pycni.exe.client"}
