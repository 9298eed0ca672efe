"""The nftables backend and the kernel: encoding, errors, choice."""

from __future__ import annotations

import json
import sys
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netns_fixtures import Host, Namespace
from pycni.cni.errors import CniError, Code
from pycni.firewall.nft_text import GUARD, MAIN, render_rebuild
from pycni.firewall.rules import AttachmentRules, NetworkRules, guard_elements, own_elements, shared_elements
from pycni.host import nft
from pycni.host.firewall import open_firewall
from pycni.host.forward import forward_blockers
from pycni.host.nfnetlink import Nfnetlink
from pycni.host.nft_messages import add_elements, in_groups
from tests.kernel.firewall_calls import NET1, attachment, environment, listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from pycni.host.firewall import Firewall

pytestmark = pytest.mark.needs("root", "tool:nft")

links = st.from_regex(r"\A[a-z][a-z0-9_.@-]{0,14}\Z")
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
prefixes = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(1, 32)), st.tuples(st.ip_addresses(v=6), st.integers(1, 128))
)
owners = st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9_.-]{0,70}/[a-zA-Z0-9][a-zA-Z0-9_.-]{0,120}/[a-z0-9]{1,15}\Z")
macs = st.binary(min_size=6, max_size=6).map(lambda packed: packed.hex(":"))


def _subnet(pair: tuple[Any, int]) -> str:
    return str(ip_interface(f"{pair[0]}/{pair[1]}").network)


networks = st.builds(
    NetworkRules,
    network=st.just("net"),
    bridges=st.lists(links, max_size=2, unique=True).map(tuple),
    isolate=st.booleans(),
    subnets=st.lists(prefixes.map(_subnet), max_size=1).map(tuple),
)
attachments = st.builds(
    AttachmentRules,
    owner=owners,
    masquerade=st.lists(addresses, max_size=3, unique=True).map(tuple),
    macs=st.lists(st.tuples(links, macs), max_size=1).map(tuple),
)


@given(network=networks, one=attachments)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_the_raw_encoding_is_nfts_own(
    make_namespace: Callable[..., Namespace], network: NetworkRules, one: AttachmentRules
) -> None:
    """What was added by raw messages lists exactly as what nft adds from our text, and the text passes `nft -c`."""
    raw, text = _twins(make_namespace)
    both = (
        (MAIN, (*shared_elements(network), *own_elements(one))),
        (GUARD, guard_elements(one)),
    )

    def by_messages() -> None:
        for table, members in both:
            nft.run_program(render_rebuild(table, members), check_only=True)
            nft.run_text(render_rebuild(table, ()))
            with Nfnetlink() as kernel:
                assert kernel.batch([add_elements(table, group) for group in in_groups(members)]) == {}
                found = [member for spec in table.sets for member in kernel.elements(table, spec.name)]
            assert sorted(found, key=repr) == sorted(set(members), key=repr)

    def by_text() -> None:
        for table, members in both:
            nft.run_text(render_rebuild(table, members))

    raw.in_namespace(by_messages)
    text.in_namespace(by_text)
    assert listed(raw) == listed(text)


_made: list[tuple[Namespace, Namespace]] = []


def _twins(make_namespace: Callable[..., Namespace]) -> tuple[Namespace, Namespace]:
    """Two namespaces for all examples of one test run of the property."""
    if not _made or not _made[0][0].exists():
        _made[:] = [(make_namespace(), make_namespace())]
    return _made[0]


def test_the_library_says_nothing_on_our_streams(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    """stdout belongs to the CNI result: errors of nft arrive as OSError with their errno, and nowhere else."""

    def fail() -> OSError:
        with pytest.raises(OSError, match="nft: ") as failure:
            nft.run_text("add element inet nowhere s { 10.0.0.1 }\n")
        return failure.value

    assert host.in_namespace(fail).errno == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("list ruleset this is no command\n", 22),
        ("delete table inet nowhere\n", 2),
        ("add table inet a\nadd set inet a s { type ipv4_addr; }\nadd set inet a s { type ipv6_addr; }\n", 17),
    ],
)
def test_program_and_library_raise_the_same_error(host: Host, text: str, number: int) -> None:
    """The fallback `nft -f -` and libnftables answer alike."""

    def both() -> list[int | None]:
        out = []
        for run in (nft.run_text, nft.run_program):
            with pytest.raises(OSError, match="nft") as failure:
                run(text)
            out.append(failure.value.errno)
        return out

    assert host.in_namespace(both) == [number, number]


def test_without_privilege_the_error_says_what_is_needed(host: Host) -> None:
    """An unprivileged caller gets code 103 naming CAP_NET_ADMIN."""
    code = (
        "import os, json\n"
        "from pycni.host.firewall import open_firewall\nfrom pycni.firewall.rules import *\n"
        "from pycni.cni.errors import CniError\n"
        "firewall = open_firewall('nftables')\nos.setuid(65534)\n"
        "try: firewall.apply_add(NetworkRules('n', ('b',)), AttachmentRules('n/c/e', ('10.0.0.1',)))\n"
        "except CniError as failure: print(json.dumps(failure.as_json()))\n"
    )
    answer = json.loads(host.run([sys.executable, "-c", code], env=environment()).stdout)
    assert answer["code"] == Code.FIREWALL
    assert "CAP_NET_ADMIN" in answer["details"]


def test_blockers_are_found_wherever_they_are(host: Host) -> None:
    """STATUS and doctor see each forward chain with policy drop, of iptables-nft and of anybody's tables."""
    host.run(["iptables-nft", "-P", "FORWARD", "DROP"])
    odd = "chain odd { type filter hook forward priority 17; policy drop; }"
    calm = "chain calm { type filter hook forward priority 0; }"
    host.run(["nft", "-f", "-"], input=f"table ip6 mine {{ {odd}; {calm}; }}\n")

    def look() -> list[str]:
        with Nfnetlink() as kernel:
            return [str(blocker) for blocker in forward_blockers(kernel)]

    assert host.in_namespace(look) == [
        "chain FORWARD of table ip filter (iptables-nft) has policy drop",
        "chain odd of table ip6 mine has policy drop",
    ]


def test_none_touches_nothing(host: Host) -> None:
    """`"backend": "none"`: all calls succeed, the ruleset stays as it is."""

    def everything() -> tuple[object, ...]:
        firewall: Firewall = open_firewall("none")
        firewall.apply_add(NET1, attachment(5))
        firewall.apply_delete(attachment(5), NET1)
        firewall.remove_all()
        return firewall.missing(NET1, attachment(5)), firewall.owners(), firewall.collect([])

    assert host.in_namespace(everything) == ((), frozenset(), ())
    assert listed(host) == ""


def test_autodetection_takes_nftables(host: Host) -> None:
    """Where nothing is asked for and nf_tables works, that is used; an unknown name is code 7."""

    def chosen() -> str:
        firewall = open_firewall()
        firewall.close()
        return firewall.name

    assert host.in_namespace(chosen) == "nftables"
    with pytest.raises(CniError, match='unknown ipmasq backend "foo"') as failure:
        open_firewall("foo")
    assert failure.value.code == Code.INVALID_CONFIG
