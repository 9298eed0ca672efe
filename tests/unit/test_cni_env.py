"""The environment of a call and CNI_ARGS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pycni.cni.env import COMMANDS, Call, parse_args, parse_call
from pycni.cni.errors import CniError, Code

Answer = TypeVar("Answer")

FULL = {
    "CNI_CONTAINERID": "ctr1",
    "CNI_NETNS": "/run/netns/a",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IP=10.0.0.5",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
    "TRACEPARENT": "00-1",
}


def answer_or_error(function: Callable[..., Answer], *args: Any) -> Answer | CniError:
    try:
        return function(*args)
    except CniError as refused:
        return refused


def environment(command: str, **changes: str) -> dict[str, str]:
    return {"CNI_COMMAND": command, **FULL, **changes}


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_call_of_an_attachment_has_all_parts(command: str) -> None:
    """Every variable has its field, and the whole environment is kept for delegates."""
    environ = environment(command)
    assert parse_call(environ) == Call(
        command=command,
        container_id="ctr1",
        netns="/run/netns/a",
        ifname="eth0",
        args="IP=10.0.0.5",
        path=("/opt/cni/bin", "/usr/lib/cni"),
        environ=tuple(environ.items()),
    )


@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_call_of_a_network_ignores_what_belongs_to_attachments(command: str) -> None:
    """GC and STATUS need CNI_PATH alone; leftovers of other calls, even invalid ones, do not matter."""
    call = parse_call(environment(command, CNI_CONTAINERID="!", CNI_IFNAME="a b"))
    assert (call.container_id, call.netns, call.ifname, call.path) == ("", "", "", ("/opt/cni/bin", "/usr/lib/cni"))
    with pytest.raises(CniError, match=r"required env variables \[CNI_PATH\] missing"):
        parse_call({"CNI_COMMAND": command})


def test_version_needs_the_command_alone() -> None:
    """VERSION is asked with nothing else set."""
    assert parse_call({"CNI_COMMAND": "VERSION"}).command == "VERSION"


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH"),
        ("", "CNI_COMMAND"),
    ],
)
@pytest.mark.parametrize("empty", [{}, dict.fromkeys(FULL, "")])
def test_all_missing_variables_are_named_at_once(command: str, missing: str, empty: dict[str, str]) -> None:
    """One message lists them; an empty variable is a missing one."""
    with pytest.raises(CniError) as refused:
        parse_call({**empty, "CNI_COMMAND": command})
    assert refused.value.code == Code.ENVIRONMENT
    assert refused.value.msg == f"required env variables [{missing}] missing"


@pytest.mark.parametrize("netns", [{}, {"CNI_NETNS": ""}])
def test_del_needs_no_namespace(netns: dict[str, str]) -> None:
    """The namespace may be gone: DEL comes without it."""
    environ = {key: value for key, value in environment("DEL").items() if key != "CNI_NETNS"}
    assert parse_call({**environ, **netns}).netns == ""


@pytest.mark.parametrize("command", ["FOO", "add", "ADD ", "\udc80", "x" * 10000])
def test_unknown_command_is_named(command: str) -> None:
    """An unknown command is code 4, shown and not repeated without limit."""
    with pytest.raises(CniError, match=r"^unknown CNI_COMMAND: ") as refused:
        parse_call(environment(command))
    assert refused.value.code == Code.ENVIRONMENT
    assert len(refused.value.msg) < 200


@pytest.mark.parametrize(
    ("value", "override"), [("1", True), ("true", True), ("TRUE", True), ("", False), ("0", False), ("yes", False)]
)
def test_netns_override_is_1_or_true(value: str, override: bool) -> None:
    """The switch of the reference, in any case."""
    assert parse_call(environment("ADD", CNI_NETNS_OVERRIDE=value)).netns_override is override


def test_empty_entries_of_the_path_are_dropped() -> None:
    """An empty entry is not the current directory: a plugin is never taken from there."""
    assert parse_call(environment("ADD", CNI_PATH=":/a::/b:")).path == ("/a", "/b")


words = st.text(alphabet=st.characters(exclude_characters="\0"), max_size=12)
variables = st.dictionaries(
    st.one_of(st.sampled_from([*FULL, "CNI_NETNS_OVERRIDE"]), words),
    st.one_of(st.sampled_from(["eth0", "ctr1", "/p", ""]), words, st.text(alphabet="\udc80\udcff/", max_size=4)),
)


@given(st.one_of(st.sampled_from([*COMMANDS, ""]), words), variables)
def test_any_environment_is_a_call_or_code_4(command: str, environ: dict[str, str]) -> None:
    """No environment does anything else than give a call or an error of code 4."""
    environ = {**environ, "CNI_COMMAND": command}
    answer = answer_or_error(parse_call, environ)
    if isinstance(answer, CniError):
        assert answer.code == Code.ENVIRONMENT
        str(answer).encode()
    else:
        assert answer.command in COMMANDS
        assert dict(answer.environ) == environ


KNOWN = ("IP", "MAC")


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        ("IP=10.0.0.5", {"IP": "10.0.0.5"}),
        ("IP=10.0.0.5;MAC=02:00:00:00:00:01", {"IP": "10.0.0.5", "MAC": "02:00:00:00:00:01"}),
        ("IP=", {"IP": ""}),
        ("IP=a;IP=b", {"IP": "b"}),
        ("IgnoreUnknown=1;K8S_POD_NAME=a;IP=b", {"IP": "b"}),
        ("K8S_POD_NAME=a;IP=b;IgnoreUnknown=true", {"IP": "b"}),
        ("ip=a;IgnoreUnknown=TRUE", {}),
        ("IgnoreUnknown=0", {}),
        ("=;IgnoreUnknown=1", {}),
    ],
)
def test_args_give_the_known_pairs(text: str, pairs: dict[str, str]) -> None:
    """Keys are case-sensitive, the last of equal ones wins, IgnoreUnknown may stand anywhere."""
    assert parse_args(text, KNOWN) == pairs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", 'ARGS: invalid pair "foo"'),
        ("none;IgnoreUnknown=1", 'ARGS: invalid pair "none"'),
        ("IP=a=b", 'ARGS: invalid pair "IP=a=b"'),
        ("IP=a;", 'ARGS: invalid pair ""'),
        ("K8S_POD_NAME=a", 'ARGS: unknown args ["K8S_POD_NAME=a"]'),
        ("A=1;IP=2;B=3;IgnoreUnknown=false", 'ARGS: unknown args ["A=1" "B=3"]'),
        ("ip=a", 'ARGS: unknown args ["ip=a"]'),
        ("ignoreunknown=1", 'ARGS: unknown args ["ignoreunknown=1"]'),
        ("IgnoreUnknown=yes", 'ARGS: error parsing value of pair "IgnoreUnknown=yes"'),
    ],
)
def test_args_that_the_reference_refuses(text: str, message: str) -> None:
    """The reference's rules and messages: one `=` in each pair always, unknown keys only with IgnoreUnknown."""
    with pytest.raises(CniError) as refused:
        parse_args(text, KNOWN)
    assert (refused.value.code, refused.value.msg) == (Code.ENVIRONMENT, message)


@example("IP=a=b")
@given(st.one_of(st.text(), st.text(alphabet="IPMACaZ=;01\udc80")))
def test_any_args_give_known_keys_or_code_4(text: str) -> None:
    """No text does anything else, and messages stay short and printable."""
    answer = answer_or_error(parse_args, text, KNOWN)
    if isinstance(answer, CniError):
        assert answer.code == Code.ENVIRONMENT
        str(answer).encode()
    else:
        assert set(answer) <= set(KNOWN)
