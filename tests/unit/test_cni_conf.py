"""The network config on stdin."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.conf import MAX_BYTES, MAX_DEPTH, Keys, NetConf, parse_conf
from pycni.cni.env import COMMANDS
from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment
from pycni.cni.result import Dns

MINIMAL = {"cniVersion": "1.1.0", "name": "net", "type": "bridge"}


def conf(command: str = "ADD", **keys: Any) -> NetConf:
    return parse_conf(json.dumps({**MINIMAL, **keys}).encode(), command)


def refusal(stdin: bytes | dict[str, Any], command: str = "ADD") -> CniError:
    with pytest.raises(CniError) as refused:
        parse_conf(stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode(), command)
    return refused.value


def test_minimal_config_has_everything_else_empty() -> None:
    """Name and version suffice; what is not given is empty, not an error."""
    stdin = b'{"name":"net"}'
    assert parse_conf(stdin, "ADD") == NetConf(
        cni_version="0.1.0",
        name="net",
        type="",
        keys=Keys({"name": "net"}),
        runtime=Keys({}),
        args_cni=Keys({}),
        ipam=Keys({}),
        dns=Dns(),
        dns_given=False,
        prev_result=None,
        valid_attachments=None,
        raw=stdin,
    )


def test_parts_are_found_in_any_case_and_know_their_path() -> None:
    """runtimeConfig, args.cni and ipam as Go clients spell them."""
    got = conf(RuntimeConfig={"MAC": "x"}, ARGS={"Cni": {"ips": ["a"]}}, IPAM={"Type": "host-local"})
    assert got.runtime.text("mac") == "x"
    assert got.args_cni.texts("ips") == ("a",)
    assert got.ipam.text("type") == "host-local"
    assert [part.where for part in (got.runtime, got.args_cni, got.ipam)] == ["runtimeConfig", "args.cni", "ipam"]


def test_config_is_kept_as_it_came() -> None:
    """Delegates get the bytes of the caller, unknown keys and all."""
    stdin = b' {"name": "net", "cniVersion": "1.0.0", "future": {"a": [1]}, "capabilities": {"ips": true}} \n'
    got = parse_conf(stdin, "ADD")
    assert got.raw == stdin
    assert got.keys.raw("future") == {"a": [1]}


@pytest.mark.parametrize(
    ("dns", "given"),
    [
        (None, False),
        ({}, False),
        ({"domain": ""}, False),
        ({"nameservers": None}, False),
        ({"nameservers": []}, True),
        ({"SEARCH": []}, True),
        ({"options": ["a"]}, True),
        ({"domain": "d"}, True),
    ],
)
def test_dns_counts_as_given_by_the_rule_of_the_reference(dns: Any, given: bool) -> None:
    """An explicit empty list replaces the IPAM plugin's dns, an empty domain does not."""
    assert conf(dns=dns).dns_given is given


def test_the_runtimes_dns_goes_before_the_networks() -> None:
    """Capability `dns` (servers, searches, options) replaces the network's own; an empty object does not."""
    own = {"nameservers": ["10.0.0.1"], "domain": "here"}
    asked = {"servers": ["10.0.0.9"], "searches": ["a", "b"], "options": ["ndots:5"]}
    got = conf(dns=own, runtimeConfig={"dns": asked})
    assert got.dns == Dns(("10.0.0.9",), "", ("a", "b"), ("ndots:5",))
    assert conf(dns=own, runtimeConfig={"dns": {}}).dns == Dns(("10.0.0.1",), "here")


@pytest.mark.parametrize(
    ("stdin", "problem"),
    [
        (b"", "stdin is empty"),
        (b" \n", "stdin is empty"),
        (b"{", "not JSON"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'"a"', "not an object"),
        (b'{"name":"net"} x', "Extra data"),
        (b'{"name":"net"}{}', "Extra data"),
        (b"{'name':'net'}", "not JSON"),
        (b'{"name":"net",}', "not JSON"),
        (b'{"name":"a\nb"}', "not JSON"),
        (b'{"name":"net","x":NaN}', "NaN is no number"),
        (b'{"name":"net","x":-Infinity}', "-Infinity is no number"),
        (b'{"name":"net","x":1e999}', "out of range"),
        (b'{"name":"net","x":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"name":"net","x":"\xff"}', "not valid Unicode"),
        (b'{"name":"net","x":"\xed\xa0\x80"}', "not valid Unicode"),
        (b'{"name":"net","x":"\\ud800"}', "lone surrogate"),
        (b'{"name":"net","\\uDC80":1}', "lone surrogate"),
        (b'\xef\xbb\xbf{"name":"net"}', "not JSON"),
        ('{"name":"net"}'.encode("utf-16"), "not valid Unicode"),
        ('{"name":"net"}'.encode("utf-16-le"), "not JSON"),
        (b'{"name":"net","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nests deeper"),
        (b'{"name":"net","x":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nests deeper"),
        (b'{"x":' * MAX_DEPTH + b"{}" + b"}" * MAX_DEPTH, "nests deeper"),
        (b" " * (MAX_BYTES + 1), "longer than"),
    ],
    ids=range(26),
)
def test_what_is_no_config_is_code_6(stdin: bytes, problem: str) -> None:
    """Everything that is not one JSON object of sane size is refused in words."""
    error = refusal(stdin)
    assert error.code == Code.DECODE
    assert problem in error.msg


def test_depth_and_surrogate_pairs_up_to_the_limit_pass() -> None:
    """The limits refuse no more than they say."""
    nested = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    parse_conf(f'{{"name":"net","x":{nested}}}'.encode(), "ADD")
    flat = json.dumps({"name": "net", "x": [[]] * 1000, "brackets": "[" * 1000}).encode()
    parse_conf(flat, "ADD")
    assert parse_conf(b'{"name":"net","x":"\\ud83d\\ude00"}', "ADD").keys.text("x") == "\U0001f600"


def test_last_of_doubled_keys_wins() -> None:
    """As in Go."""
    assert parse_conf(b'{"name":"a","name":"net"}', "ADD").name == "net"


@pytest.mark.parametrize("name", ["", None, "a/b", "-a", "a b"])
def test_bad_network_name_is_code_7_before_the_version_is_looked_at(name: str | None) -> None:
    """The order of the reference: JSON, name, version."""
    error = refusal({"name": name, "cniVersion": "9.9.9"})
    assert error.code == Code.INVALID_CONFIG
    assert error.msg.startswith(("missing network name", "invalid characters found in network name"))


def test_version_is_refused_before_the_other_keys() -> None:
    """A config of a version that we do not know may mean anything by its keys."""
    error = refusal({"name": "net", "cniVersion": "9.9.9", "ipam": 1})
    assert (error.code, error.msg) == (Code.VERSION, "incompatible CNI versions")


def test_plugin_may_support_fewer_versions() -> None:
    """A plugin says which it supports; the error lists those."""
    with pytest.raises(CniError, match="incompatible"):
        parse_conf(b'{"name":"net","cniVersion":"0.3.1"}', "ADD", supported=("0.4.0", "1.0.0"))


@pytest.mark.parametrize(("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")])
def test_commands_that_the_version_does_not_have_are_code_1(command: str, version: str) -> None:
    """CHECK of 0.3.1 and GC or STATUS of 1.0.0 do not exist."""
    assert refusal({"name": "net", "cniVersion": version}, command).code == Code.VERSION


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"type": "/bin/sh"}, "type is"),
        ({"type": 1}, "type is 1, not a string"),
        ({"ipam": {"type": "../x"}}, "ipam.type is"),
        ({"ipam": []}, "ipam is [], not an object"),
        ({"args": {"cni": 1}}, "args.cni is 1, not an object"),
        ({"runtimeConfig": "x"}, "runtimeConfig is"),
        ({"dns": {"search": "x"}}, "dns.search is"),
        ({"cniVersion": 1}, "cniVersion is 1, not a string"),
        ({"prevResult": {"ips": [{"address": "x"}]}}, "prevResult.ips[0].address is wrong"),
    ],
)
def test_wrong_values_are_code_7_with_their_path(keys: dict[str, Any], problem: str) -> None:
    """The key that is wrong is named first."""
    error = refusal({**MINIMAL, **keys})
    assert error.code == Code.INVALID_CONFIG
    assert error.msg.startswith(problem)


PREV_RESULT = {"cniVersion": "1.0.0", "CNIVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]}


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
def test_prev_result_is_parsed(command: str) -> None:
    """In any spelling of the key, and with the two spellings of cniVersion that libcni sends."""
    got = conf(command, PrevResult=PREV_RESULT).prev_result
    assert got is not None
    assert [each.address for each in got.ips] == [ip_interface("10.0.0.2/24")]


@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_commands_on_the_network_have_no_prev_result(command: str) -> None:
    """GC and STATUS speak of no attachment."""
    assert conf(command, prevResult=PREV_RESULT).prev_result is None


@pytest.mark.parametrize("value", [None, {}])
def test_null_prev_result_is_none_and_empty_one_is_empty(value: Any) -> None:
    """`null` is absent; `{}` is a result without anything."""
    got = conf(prevResult=value).prev_result
    assert (got is None) is (value is None)


@pytest.mark.parametrize("broken", ["x", [1], {"cniVersion": "9.9.9"}, {"ips": [{"address": "x"}]}, {"ips": 1}])
def test_broken_prev_result_stops_add_and_check_but_not_del(broken: Any) -> None:
    """DEL frees by the attachment's id; a damaged cache of the runtime must not keep it from that."""
    assert conf("DEL", prevResult=broken).prev_result is None
    for command in ("ADD", "CHECK"):
        assert refusal({**MINIMAL, "prevResult": broken}, command).code in (
            Code.VERSION,
            Code.DECODE,
            Code.INVALID_CONFIG,
        )


ENTRY = {"containerID": "a", "ifname": "eth0"}
KEPT = (Attachment("net", "a", "eth0"),)


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        ({}, None),
        ({"cni.dev/valid-attachments": None}, ()),
        ({"cni.dev/valid-attachments": []}, ()),
        ({"cni.dev/valid-attachments": None, "cni.dev/attachments": None}, ()),
        ({"cni.dev/valid-attachments": [ENTRY]}, KEPT),
        ({"cni.dev/attachments": [ENTRY]}, KEPT),
        ({"cni.dev/valid-attachments": None, "cni.dev/attachments": [ENTRY]}, KEPT),
        ({"cni.dev/Valid-Attachments": [{"ContainerID": "a", "IfName": "eth0", "more": 1}]}, KEPT),
    ],
)
def test_attachments_that_gc_keeps(keys: dict[str, Any], kept: tuple[Attachment, ...] | None) -> None:
    """No list is None, an empty one (null, as Go writes it) is (); the older name of the key counts too."""
    assert conf("GC", **keys).valid_attachments == kept
    assert conf("ADD", **keys).valid_attachments is None


@pytest.mark.parametrize("entries", [{}, "a", [1], [{"containerID": "a"}], [{"ifname": "eth0"}], [ENTRY, None]])
def test_gc_with_an_unreadable_entry_is_refused(entries: Any) -> None:
    """What cannot be read cannot be kept: better no GC than a live attachment deleted."""
    assert refusal({**MINIMAL, "cni.dev/valid-attachments": entries}, "GC").code == Code.INVALID_CONFIG


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.just("10.0.0.1/8")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=10,
)
known_keys = st.sampled_from(
    ["cniVersion", "name", "type", "ipam", "dns", "args", "runtimeConfig", "prevResult", "cni.dev/valid-attachments"]
)
configs = st.builds(
    lambda base, drawn: json.dumps({**base, **drawn}).encode(),
    st.sampled_from([{}, MINIMAL]),
    st.dictionaries(st.one_of(known_keys, st.text(max_size=6)), json_values, max_size=4),
)


@given(st.one_of(st.binary(), configs, st.text().map(str.encode)), st.sampled_from(COMMANDS))
def test_any_stdin_is_a_config_or_code_1_6_or_7(stdin: bytes, command: str) -> None:
    """No bytes do anything else, and every message can be printed."""
    refused = None
    try:
        got = parse_conf(stdin, command)
    except CniError as error:
        refused = error
    if refused is None:
        assert got.raw == stdin
    else:
        assert refused.code in (Code.VERSION, Code.DECODE, Code.INVALID_CONFIG)
        str(refused).encode()
