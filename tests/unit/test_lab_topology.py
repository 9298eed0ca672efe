"""A lab's file: what it means, every error with its line and key, and the JSON schema that says the same."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pycni.cli import main
from pycni.lab.errors import LabError
from pycni.lab.parsing import parse_lab, read_lab
from pycni.lab.ports import PortSpec, parse_port
from pycni.lab.scenario_file import read_scenario
from pycni.lab.topology import Lab, LinkSpec

SCHEMA = json.loads(resources.files("pycni.lab").joinpath("schema.json").read_text(encoding="utf-8"))

WHOLE = """\
name: whole
underlay:
  lan: {ipv4: 192.0.2.0/24, ipv6: "2001:db8:a::/64"}
  wan: {ipv4: 198.51.100.0/24, mtu: 1400}
routers:
  r1: {links: [lan, wan], sysctls: {net.ipv4.ip_default_ttl: 9}}
etcd: {members: 3, tls: true, segment: wan, prefix: /pycni/whole}
networks:
  blue: {type: overlay, mode: routed, ipv4: 10.1.0.0/16, ipv6: "fd00:1::/64", vni: 7}
  own: {ipv4: 10.2.0.0/24, ports: false, config: {isolate: true}}
hosts:
  h[1-2]:
    links: [lan, {segment: wan, mtu: 1300}]
    agent: {workers: 2}
    containers:
      c[01-03]: {networks: [blue]}
      web:
        networks: [{name: own, ips: [10.2.0.9], mac: "02:00:00:00:00:01", ifname: net0}, blue]
        ports: ["8080-8081:80-81/udp"]
        command: [sleep, "1"]
        rootfs: root
        environment: {N: 1}
  h3: {agent: false}
"""


def lab(text: str) -> Lab:
    return parse_lab(text, "lab.yaml", default_name="lab", directory="/here")


def problems(text: str) -> list[str]:
    """The lines of the error that *text* must be."""
    with pytest.raises(LabError) as caught:
        lab(text)
    return list(caught.value.details)


def test_the_whole_format() -> None:
    """Every key arrives where it belongs, and what the file leaves out has its default."""
    whole = lab(WHOLE)
    assert [each.name for each in whole.machines] == ["r1", "etcd1", "etcd2", "etcd3", "h1", "h2", "h3"]
    assert len(whole.containers) == 8
    assert whole.hosts[0].links == (
        LinkSpec(segment="lan", ifname="eth0", mtu=1500),
        LinkSpec(segment="wan", ifname="eth1", mtu=1300),
    )
    assert whole.hosts[2].links[0].segment == "lan"
    assert whole.etcd is not None and whole.etcd.hosts[0].links[0].mtu == 1400
    assert (whole.hosts[0].agent, whole.hosts[0].agent_config, whole.hosts[2].agent) == (True, (("workers", 2),), False)
    web = whole.hosts[1].container("web")
    assert web is not None and (web.rootfs, web.command, web.environment) == (
        "/here/root",
        ("sleep", "1"),
        (("N", "1"),),
    )
    own, blue = web.attachments
    assert (own.ifname, own.ips, own.mac, blue.ifname) == ("net0", ("10.2.0.9",), "02:00:00:00:00:01", "eth1")
    assert own.ports == (
        PortSpec(host_port=8080, container_port=80, protocol="udp"),
        PortSpec(host_port=8081, container_port=81, protocol="udp"),
    )
    assert {each.name: each.ports for each in whole.networks} == {"blue": False, "own": True}
    assert [each.name for each in whole.hosts[0].containers] == ["c01", "c02", "c03", "web"]


def test_the_smallest_lab() -> None:
    """One host: a segment with both families is there by itself, the name is the file's."""
    small = lab("hosts: {h1: }")
    assert (small.name, small.segments[0].ipv4, small.segments[0].ipv6) == ("lab", "192.0.2.0/24", "2001:db8:a::/64")
    assert small.hosts[0].links[0].segment == "lan" and small.etcd is None


def test_what_is_kept_is_read_again() -> None:
    """A lab that runs is known by its document: it gives the same lab."""
    whole = lab(WHOLE)
    assert parse_lab(json.dumps(whole.document), "state.json", directory="/here") == whole


def test_json_is_read_too() -> None:
    """Also with tabs, which YAML does not allow."""
    assert lab(json.dumps({"hosts": {"h1": {}}}, indent="\t")).hosts[0].name == "h1"


def test_words_mean_what_they_say() -> None:
    """YAML 1.1 would make false of `no` and 485653 of `8080:53`."""
    found = lab("networks: {no: {ipv4: 10.0.0.0/24}}\nhosts: {on: {containers: {y: {ports: [8080:53]}}}}")
    assert (found.networks[0].name, found.hosts[0].name) == ("no", "on")
    assert found.containers[0].attachments[0].ports[0].host_port == 8080


def test_merged_keys() -> None:
    """Anchors and << are understood, for they are what long files are written with."""
    found = lab("hosts:\n  h1: &h {agent: false, sysctls: {net.core.somaxconn: 1}}\n  h2: {<<: *h, agent: true}")
    assert (found.hosts[1].agent, found.hosts[1].sysctls) == (True, (("net.core.somaxconn", "1"),))


def test_aliases_of_aliases_are_bounded() -> None:
    """Seven lines can stand for millions of values; that is told at once, and an alias inside of itself has an end."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefgh")]
    assert problems("\n".join(lines)) == ["lab.yaml:1: more than 100000 values, aliases written out"]
    assert any("has no end" in each for each in problems("hosts: &h {h1: *h}"))


@pytest.mark.parametrize("read", [read_lab, read_scenario])
def test_a_file_that_cannot_be_read(tmp_path: Path, read: Callable[[str], object]) -> None:
    """Missing, and a directory: each in words, of labs and of scenarios."""
    with pytest.raises(LabError, match="there is no file"):
        read(str(tmp_path / "lab.yaml"))
    with pytest.raises(LabError, match="cannot be read: Is a directory"):
        read(str(tmp_path))


def test_without_yaml_there_is_a_way_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML belongs to an extra: its absence names that."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(LabError) as caught:
        lab("hosts: {h1: {}}")
    assert caught.value.next_step == "pip install 'pycni[lab]'"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hosts: {}", "lab.yaml:1: hosts: a lab needs a host"),
        ("name: x", "lab.yaml:1: a lab needs a host"),
        ("[]", "lab.yaml:1: must be a mapping, not a list"),
        ("hosts: {h1: {}}\nname: A B", "lab.yaml:2: name: 'A B' cannot be a lab's name"),
        ("hosts: {h1: {}}\nhots: 1", "lab.yaml:2: hots: unknown key: did you mean 'hosts'?"),
        ("hosts:\n  h1: {}\n  h1: {}", "lab.yaml:3: hosts.h1: stands here for the second time, see line 2"),
        ("hosts:\n  h[1-2]: {}\n  h2: {}", "lab.yaml:3: hosts.h2: 'h2' is already described in line 2"),
        ("hosts:\n  h[3-2]: {}", "[3-2] must go up"),
        ("hosts: {h1: {}\n", "lab.yaml:2: "),
        ("hosts:\n\th1:", "lab.yaml:2: "),
        ("hosts: {H1: {}}", "'H1' cannot be a name"),
        ("hosts: {h1: {links: [wan]}}", "hosts.h1.links[0]: there is no segment 'wan'; there are lan"),
        ("hosts: {h1: {links: [lan, lan]}}", "two links lead to the same segment"),
        ("hosts: {h1: {links: [{segment: lan, ipv4: 10.0.0.1}]}}", "10.0.0.1 is not in 192.0.2.0/24 of segment lan"),
        ("hosts: {h1: {links: [{segment: lan, ipv4: 192.0.2.255}]}}", "is no host's address"),
        ("hosts:\n  h[1-2]: {links: [{segment: lan, ipv4: 192.0.2.9}]}", "192.0.2.9 is already that of h1"),
        ("hosts: {h1: {links: [{segment: lan, mtu: 9}]}}", "9 is not a number in 1280..65535"),
        ("hosts: {h1: {agent: maybe}}", "'maybe' is neither true nor false"),
        ("hosts: {h1: {sysctls: {kernel.panic: 1}}}", "only sysctls of the network"),
        ("hosts: {h1: {containers: {-x: {}}}}", "'-x' cannot be a container's name"),
        ("hosts: {h1: {containers: {a: {networks: [b]}}}}", "there is no network 'b'; there are none"),
        ("hosts: {h1: {containers: {a: {command: []}}}}", "an empty command cannot be run"),
        ("hosts: {h1: {containers: {a: {ports: ['80:80']}}}}", "a container without network cannot publish ports"),
        ("hosts: {h1: {}}\nrouters: {h1: {links: [lan]}}", "'h1' is already the name of a router"),
        ("hosts: {h1: {}}\nrouters: {r: {links: [lan]}}", "a router needs 2 links"),
        ("hosts: {h1: {}}\netcd: {members: 2}", "2 members bear no more failures than 1: 1, 3 or 5"),
        ("hosts: {etcd1: {}}\netcd: {}", "'etcd1' is already the name of a host of etcd"),
        ("hosts: {h1: {}}\netcd: {prefix: x}", "'x' is no prefix such as /pycni/blue"),
        ("hosts: {h1: {}}\nunderlay: {a: {}, b: {ipv4: 10.0.0.0/8}}", "underlay.a: needs ipv4 or ipv6"),
        ("hosts: {h1: {}}\nunderlay: {a: {ipv4: 10.0.0.1/8}}", "'10.0.0.1/8' is no prefix"),
        ("hosts: {h1: {}}\nunderlay: {a: {ipv4: 10.0.0.0/31}}", "has no room for two hosts"),
        ("hosts: {h1: {}}\nunderlay: {a: {ipv6: 10.0.0.0/8}}", "10.0.0.0/8 is no IPv6 prefix"),
        ("hosts: {h1: {}}\nnetworks: {n: {ipv4: 192.0.0.0/16}}", "192.0.0.0/16 overlaps 192.0.2.0/24 of segment lan"),
        ("hosts: {h1: {}}\nnetworks: {n: {}}", "networks.n: needs ipv4 or ipv6"),
        ("hosts: {h1: {}}\nnetworks: {n: {type: overley, ipv4: 10.0.0.0/8}}", "did you mean 'overlay'?"),
        ("hosts: {h1: {}}\nnetworks: {n: {mode: l2, ipv4: 10.0.0.0/8}}", "mode: is for networks of type overlay"),
        ("hosts: {h1: {}}\nnetworks: {n: {type: overlay, ipv4: 10.0.0.0/8}}", "which needs etcd: add `etcd: {}`"),
    ],
)
def test_errors_name_line_key_and_remedy(text: str, wanted: str) -> None:
    assert any(wanted in line for line in problems(text)), problems(text)


def test_all_errors_come_at_once() -> None:
    """In the order of the lines, each once, however many hosts an entry stands for."""
    found = problems("name: NO\nhosts:\n  h[1-9]:\n    agent: 3\n    lnks: []\n  x: {sysctls: {a: 1}}\n")
    assert [line.split(":")[1] for line in found] == ["1", "4", "5", "6"]


@pytest.mark.parametrize(
    ("networks", "containers", "wanted"),
    [
        ("a: {ipv4: 10.1.0.0/24}, b: {ipv4: 10.2.0.0/24}", "c: {}", "say which: a, b (or [] for none)"),
        ("a: {ipv4: 10.1.0.0/24}", "c: {networks: [{name: a, ips: [10.2.0.1]}]}", "is not in 10.1.0.0/24 of network a"),
        ("a: {ipv4: 10.1.0.0/24}", "c: {networks: [{name: a, mac: '03:00:00:00:00:00'}]}", "is no MAC address"),
        ("a: {ipv4: 10.1.0.0/24}", "c: {networks: [{name: a, ifname: lo}]}", "cannot be an interface's name"),
        ("a: {ipv4: 10.1.0.0/24}", "c: {networks: [{name: a, ifname: eth1}, a]}", "the same name: eth1, eth1"),
        ("a: {ipv4: 10.1.0.0/24}", "c: {ports: [80]}", "'80' is not [HOSTIP:]HOSTPORT"),
        ("a: {ipv4: 10.1.0.0/24}", "'c[1-2]': {ports: ['80:80']}", "c2 and c1 both publish 80/tcp"),
        ("a: {type: overlay, mode: multicast, ipv4: 10.1.0.0/24}", "c: {}", "needs a vni"),
    ],
)
def test_errors_of_containers(networks: str, containers: str, wanted: str) -> None:
    text = f"networks: {{{networks}}}\nhosts:\n  h1: {{containers: {{{containers}}}}}"
    assert any(wanted in line for line in problems(text)), problems(text)


def test_multicast_without_etcd_needs_addresses() -> None:
    """Else two hosts would give the same one; with etcd, or for one host alone, nobody has to."""
    network = "networks: {m: {type: overlay, mode: multicast, vni: 5, ipv4: 10.1.0.0/24}}\n"
    hosts = "hosts: {h1: {containers: {c: {networks: [{name: m, ips: [10.1.0.9]}]}}}, h2: {containers: {c: {}}}}"
    assert lab(network + hosts)  # one host's own IPAM is enough for the rest
    both = "hosts:\n  h[1-2]: {containers: {c: {}}}"
    assert "add `etcd: {}`" in problems(network + both)[0]
    assert lab(f"{network}etcd: {{}}\n{both}")


@pytest.mark.parametrize(
    ("text", "mappings"),
    [
        ("80:8080", [(80, 8080, "tcp", "")]),
        ("[::1]:80:8080/UDP", [(80, 8080, "udp", "::1")]),
        ("127.0.0.1:80-81:1-2/sctp", [(80, 1, "sctp", "127.0.0.1"), (81, 2, "sctp", "127.0.0.1")]),
    ],
)
def test_ports(text: str, mappings: list[tuple[int, int, str, str]]) -> None:
    found = [(each.host_port, each.container_port, each.protocol, each.host_ip) for each in parse_port(text)]
    assert found == mappings


# -- the schema --------------------------------------------------------------------------------------------------------

VALID = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """And `pycni lab schema` prints it."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert main(["lab", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


def paths(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything in a document but its top."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, each in inner for path in ((*where, key), *paths(each, (*where, key)))]


DOCUMENT = yaml.load(WHOLE, Loader=yaml.SafeLoader)
WRONG = st.one_of(
    st.integers(-5, 5), st.booleans(), st.just([3]), st.just({"unheard": 1}), st.text("aZ :/", max_size=4)
)


@given(st.sampled_from(paths(DOCUMENT)), st.none() | WRONG)
def test_the_schema_allows_what_the_parser_takes(path: tuple[Any, ...], wrong: Any) -> None:
    """A value anywhere is taken away or becomes another: whatever the parser still takes, an editor shows no error for.

    The free objects `config` and `agent` hold what they like.
    """
    document = copy.deepcopy(DOCUMENT)
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    if wrong is None:
        del holder[path[-1]]
    else:
        holder[path[-1]] = wrong
    try:
        lab(json.dumps(document))
    except LabError:
        return
    VALID.validate(document)


def test_the_schema_knows_every_key_and_no_other() -> None:
    """An unknown key is an error of the schema wherever it is one of the parser; the whole format is none."""
    VALID.validate(DOCUMENT)
    for path in [(), *paths(DOCUMENT)]:
        document = copy.deepcopy(DOCUMENT)
        place = document
        for key in path:
            place = place[key]
        if not isinstance(place, dict):
            continue
        place["unheard"] = [1]
        try:
            lab(json.dumps(document))
            taken = True
        except LabError:
            taken = False
        assert VALID.is_valid(document) == taken, path
