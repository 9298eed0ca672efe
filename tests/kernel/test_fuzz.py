"""Whatever comes in, a result or an error of the protocol comes out, and a failure changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netns_fixtures import Container, assert_unchanged
from pycni.cli.launcher import interpreter, package_parent
from pycni.cni.errors import Code
from tests.kernel import answering
from tests.kernel.bridge_lab import Conf, Lab, network

pytestmark = pytest.mark.needs("root", "tool:nft", "kernel:bridge", "kernel:veth")

# Written for everybody by Code; what a delegated plugin answers is its own business, and none is called here.
CODES = {code for name, code in vars(Code).items() if name.isupper()}
TIMES = int(os.environ.get("PYCNI_TEST_FUZZ", "1"))  # how many times the examples of an ordinary run
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def fuzzed(examples: int) -> settings:
    return settings(max_examples=examples * TIMES, deadline=None, database=None, suppress_health_check=QUIET)


class Answers:
    """A plugin's `answer` in one process on a host."""

    def __init__(self, lab: Lab, container: Container, plugin: str = "bridge") -> None:
        self.plugin = plugin
        self.environ = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": container.path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(lab.plugins),
        }
        argv = [interpreter(), "-SE", str(answering.__file__), str(lab.plugins / plugin), package_parent()]
        pipe = subprocess.PIPE
        self._process = lab.host.popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self._clean = self.ask({"CNI_COMMAND": "VERSION"}, b"")["traces"]

    def ask(self, environ: Conf, config: bytes) -> Conf:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"environ": environ, "config": config.decode("latin-1")}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process has ended"
        answer: Conf = json.loads(line)
        return answer

    def judge(self, environ: Conf, config: bytes) -> Conf | None:
        """The error of a call, None if it worked; AssertionError for an answer that is against the rules.

        After a success everything is taken away again, by DEL and GC, which must both work.
        """
        answer = self.ask(environ, config)
        if answer["code"] == 0:
            self._take_away(environ, config)
            return None
        error: Conf = json.loads(answer["text"])
        assert set(error) <= {"code", "msg", "details"}
        assert error["code"] in CODES, error
        assert "bug in pycni" not in error["msg"], error
        assert error["msg"]
        assert answer["traces"] == self._clean, error
        return error

    def _take_away(self, environ: Conf, config: bytes) -> None:
        if environ.get("CNI_COMMAND") != "ADD":
            return
        gone = self.ask({**environ, "CNI_COMMAND": "DEL"}, config)
        assert (gone["code"], gone["text"]) == (0, "")
        conf = {key.lower(): value for key, value in json.loads(config).items()}
        listed = {"cniVersion": "1.1.0", "name": conf["name"], "type": self.plugin, "cni.dev/valid-attachments": []}
        collected = self.ask({**environ, "CNI_COMMAND": "GC"}, json.dumps(listed).encode())
        assert collected["code"] == 0, collected
        self._clean = collected["traces"]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(10) == 0


@pytest.fixture
def answers(lab: Lab, c1: Container) -> Iterator[Answers]:
    """With forwarding on: a success switches it on, and it stays."""
    lab.host.sysctl("net/ipv4/ip_forward", "1")
    lab.host.sysctl("net/ipv6/conf/all/forwarding", "1")
    before = lab.traces(c1)
    asked = Answers(lab, c1)
    yield asked
    asked.close()
    assert_unchanged(before, lab.traces(c1), ignore=["c1/sysctl/*", "*dst=fe80*"])


texts = st.text(max_size=20) | st.sampled_from(["", "a/b", "..", "\0", "é" * 9, "x" * 300, "%d", "eth0", "lo", "all"])
numbers = (
    st.integers(-5, 5) | st.sampled_from([-(2**63), 2**31, 2**32, 2**64, 10**40, 65536]) | st.floats(allow_nan=False)
)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3), max_leaves=6
)
addresses = st.sampled_from(
    ["10.1.0.5/24", "10.1.0.1/24", "fd00:1::5/64", "0.0.0.0/0", "255.255.255.255/32", "::/0", "::1/128", "224.0.0.1/4",
     "fe80::1/64", "127.0.0.1/8", "10.1.0.5", "::ffff:10.0.0.1/120", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"]
)  # fmt: skip
gateways = addresses.map(lambda text: text.partition("/")[0])
routes = st.fixed_dictionaries(
    {"dst": addresses},
    optional={
        "gw": gateways,
        "mtu": numbers,
        "advmss": st.integers(0, 2**32),
        "priority": st.integers(0, 2**32),
        "table": st.integers(0, 2**32),
        "scope": st.integers(0, 256),
    },
)
ranges = st.fixed_dictionaries(
    {"subnet": addresses | st.sampled_from(["10.1.0.0/24", "10.1.0.0/30", "fd00::/64"])},
    optional={"rangeStart": gateways, "rangeEnd": gateways, "gateway": gateways},
)
ipams = (
    st.fixed_dictionaries(
        {
            "type": st.just("static"),
            "addresses": st.lists(
                st.fixed_dictionaries({"address": addresses}, optional={"gateway": gateways}), max_size=3
            ),
        },
        optional={"routes": st.lists(routes, max_size=3)},
    )
    | st.fixed_dictionaries(
        {
            "type": st.sampled_from(["host-local", "pycni-ipam"]),
            "ranges": st.lists(st.lists(ranges, max_size=2), max_size=3),
        },
        optional={"routes": st.lists(routes, max_size=2), "exclude": st.lists(addresses | texts, max_size=2)},
    )
    | st.fixed_dictionaries({"type": st.sampled_from(["absent", "", "../static", "a\0b"])})
)
flags = {
    key: st.booleans() | values
    for key in ("isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "hairpinMode", "promiscMode", "isolate",
                "macspoofchk", "portIsolation", "disableContainerInterface", "preserveDefaultVlan")
}  # fmt: skip
keys = {
    **flags,
    "cniVersion": st.sampled_from(["0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "", "2.0.0"]) | values,
    "name": st.sampled_from(["net", "a.b-c_d", "n" * 200, "", "/", "-x"]) | values,
    "type": st.sampled_from(["bridge", "a/b", ""]) | values,
    "bridge": st.sampled_from(["cni1", "", "br-1", "lo", "br*", "br%d", "a b", "0", "br\u00e9"]) | texts,
    "mtu": st.sampled_from([0, 67, 68, 1279, 1280, 65535]) | values,
    "vlan": st.integers(-1, 4096) | values,
    "vlanTrunk": st.lists(st.dictionaries(st.sampled_from(["id", "minID", "maxID"]), numbers, max_size=3), max_size=2)
    | values,
    "ipMasqBackend": st.sampled_from(["nftables", "", "foo"]) | values,
    "backend": st.sampled_from(["nftables", "none", "", "foo"]) | values,
    "ipam": ipams | values,
    "dns": st.dictionaries(st.sampled_from(["nameservers", "domain", "search"]), values, max_size=2) | values,
    "runtimeConfig": st.dictionaries(st.sampled_from(["mac", "ips", "ipRanges", "dns"]), values, max_size=3) | values,
    "args": st.fixed_dictionaries({"cni": st.dictionaries(st.sampled_from(["mac", "ips"]), values)}) | values,
    "prevResult": values,
    "cni.dev/valid-attachments": values,
}
configs = st.fixed_dictionaries({}, optional=keys).map(lambda changed: {**network(), **changed})
environments = st.fixed_dictionaries(
    {},
    optional={
        "CNI_COMMAND": st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "add", ""]) | texts,
        "CNI_CONTAINERID": st.sampled_from(["c1", "C.1-_", "-c", "a/b", "x" * 300, ""]) | texts,
        "CNI_IFNAME": st.sampled_from(["eth0", "lo", "all", "default", "eth%d", "a" * 15, "a" * 16, ".", "é"]) | texts,
        "CNI_NETNS": st.sampled_from(["", "/nonexistent", "/etc/hostname", "/dev/null", "/", "relative", "\0"]),
        "CNI_PATH": st.sampled_from(["", ":", "/nonexistent", "/etc", "relative"]),
        "CNI_ARGS": texts,
        "CNI_NETNS_OVERRIDE": st.sampled_from(["0", "x"]),
    },
).map(lambda made: {key: value.replace("\0", "0") for key, value in made.items()})  # execve takes no NUL


@fuzzed(250)
@given(changed=configs)
def test_any_values_of_known_keys(answers: Answers, changed: Conf) -> None:
    """A config with some keys odd or wrong: a working network, or an error with its code and a clean host."""
    answers.judge(answers.environ, json.dumps(changed).encode())


@fuzzed(100)
@given(value=values | st.dictionaries(st.sampled_from(sorted(keys)), values))
def test_any_json(answers: Answers, value: Any) -> None:
    """What is no object is code 6; an object without a good name is code 7."""
    error = answers.judge(answers.environ, json.dumps(value).encode())
    assert error is not None or "name" in value
    if not isinstance(value, dict):
        assert error is not None
        assert error["code"] == 6


@fuzzed(100)
@given(config=st.binary(max_size=60) | st.text(alphabet='{}[]",:0eE.-nulltrue \\u', max_size=40).map(str.encode))
def test_any_bytes(answers: Answers, config: bytes) -> None:
    """Almost never JSON: code 6, and 7 for the odd `{}`."""
    error = answers.judge(answers.environ, config)
    assert error is not None
    assert error["code"] in (6, 7)


@fuzzed(150)
@given(
    changed=environments,
    dropped=st.sets(st.sampled_from(["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]), max_size=1),
)
def test_any_environment(answers: Answers, changed: Conf, dropped: set[str]) -> None:
    """Code 4 for what is missing or wrong, 8 for a namespace that is none; any command may come."""
    environ = {**answers.environ, **changed}
    for name in dropped:
        environ.pop(name, None)
    error = answers.judge(environ, json.dumps(network()).encode())
    if dropped & {"CNI_COMMAND"}:
        assert error is not None
        assert error["code"] == 4


words = st.sampled_from(["IP", "GATEWAY", "MAC", "IgnoreUnknown", "K8S_POD_NAME", "ip", ""]) | texts
pairs = st.tuples(
    words, st.sampled_from(["10.1.0.9", "10.1.0.1", "fd00:1::9", "1", "true", "02:00:00:00:00:05"]) | texts
)
arguments = st.lists(pairs.map("=".join) | texts, max_size=3).map(";".join).map(lambda text: text.replace("\0", ""))


@fuzzed(150)
@given(text=arguments)
def test_any_cni_args(answers: Answers, text: str) -> None:
    """An address, a MAC, an ignored pair, or code 4 (the text is wrong) or what its values are refused with."""
    error = answers.judge({**answers.environ, "CNI_ARGS": text}, json.dumps(network()).encode())
    assert error is None or error["code"] in (4, 7, 102, 999)


@fuzzed(25)
@given(changed=configs, environ=environments, text=arguments)
def test_the_executable_itself(lab: Lab, c1: Container, changed: Conf, environ: Conf, text: str) -> None:
    """The same through the process: one JSON object on stdout, nothing on stderr that looks like a crash."""
    protocol = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": c1.path, "CNI_IFNAME": "eth0"}
    given_environ = {**protocol, "CNI_PATH": str(lab.plugins), "CNI_ARGS": text, **environ}
    given_environ = {name: value.encode("utf-8", "replace").decode() for name, value in given_environ.items()}
    text = json.dumps(changed)
    done = lab.host.run([lab.plugins / "bridge"], input=text, check=False, env=given_environ)
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        lab.host.run([lab.plugins / "bridge"], input=text, env={**given_environ, "CNI_COMMAND": "DEL"}, check=False)
        lab.gc({"cniVersion": "1.1.0", "name": str(changed.get("name")), "type": "bridge"})
    else:
        error = json.loads(done.stdout)
        assert error["code"] in CODES
        assert "bug in pycni" not in error["msg"]
    assert lab.records() == {}
    assert lab.leases() == []
