"""What a test needs from the machine: tried for real, once per session, and named when it is missing."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import shutil

import pytest

from .holder import tool_path
from .namespace import Namespace

STRICT = "NETNS_FIXTURES_STRICT"

_TWO_LINKS = "ip link add v0 type veth peer name v1; "
_ON_NAT = "add chain inet t c { type nat hook postrouting priority 100; }; "
_ON_INPUT = "add chain inet t c { type filter hook input priority 0; }; "

#: Name -> shell lines that work in a scratch network namespace if, and only if, the kernel has it.
KERNEL: dict[str, str] = {
    "netns": "true",
    "ipv6": "test -d /proc/sys/net/ipv6",
    **{kind: f"ip link add x0 type {kind}" for kind in ("bridge", "dummy", "ifb", "bond", "veth", "wireguard")},
    "vxlan": "ip link add x0 type vxlan id 1 dstport 4789",
    "vrf": "ip link add x0 type vrf table 10",
    **{kind: f"{_TWO_LINKS} ip link add link v0 name x0 type {kind}" for kind in ("macvlan", "ipvlan", "macvtap")},
    "vlan8021q": f"{_TWO_LINKS} ip link add link v0 name x0 type vlan id 5",
    "vlan_filtering": "ip link add x0 type bridge vlan_filtering 1; bridge vlan add dev x0 vid 5 self",
    "vxlan_vnifilter": "ip link add x0 type vxlan external vnifilter dstport 4789",
    "netem": f"{_TWO_LINKS} tc qdisc add dev v0 root netem delay 1ms",
    "tbf": f"{_TWO_LINKS} tc qdisc add dev v0 root tbf rate 1mbit burst 10k latency 50ms",
    "htb": f"{_TWO_LINKS} tc qdisc add dev v0 root htb",
    "fq_codel": f"{_TWO_LINKS} tc qdisc add dev v0 root fq_codel",
    "clsact": f"{_TWO_LINKS} tc qdisc add dev v0 clsact",
    "nf_tables": "nft add table inet t",
    "nft_nat": f"nft 'add table inet t; {_ON_NAT} add rule inet t c masquerade'",
    "nft_bridge": "nft 'add table bridge t; add chain bridge t c { type filter hook forward priority 0; }'",
    "nft_ct": f"nft 'add table inet t; {_ON_INPUT} add rule inet t c ct state established accept'",
    "nft_numgen": f"nft 'add table inet t; {_ON_INPUT} add rule inet t c numgen random mod 2 0 drop'",
    "iptables_legacy": "iptables-legacy -t nat -A POSTROUTING -j MASQUERADE",
    "iptables_nft": "iptables-nft -t nat -A POSTROUTING -j MASQUERADE",
    "ip6tables_legacy": "ip6tables-legacy -t nat -A POSTROUTING -j MASQUERADE",
    "xt_comment": "iptables -A INPUT -m comment --comment x -j ACCEPT",
    "br_netfilter": "test -e /proc/sys/net/bridge/bridge-nf-call-iptables",
    "tun": "ip tuntap add dev x0 mode tap",
}

_PROBE_TOOLS = ("ip", "bridge", "tc", "nft", "iptables", "iptables-legacy", "iptables-nft", "ip6tables-legacy")


def needs(*capabilities: str) -> None:
    """Skip the test unless the machine has them all: "root", "tool:NAME", "python:MODULE", "kernel:NAME" (see KERNEL).

    With NETNS_FIXTURES_STRICT=1 a missing tool fails the test: it can be installed, and a suite that silently tests
    less is worse than one that fails. A kernel option or root cannot be had everywhere: their absence stays a skip.
    """
    for capability in itertools.chain.from_iterable(map(_with_tools, capabilities)):
        reason = missing(capability)
        if reason is None:
            continue
        if capability.startswith("tool:") and os.environ.get(STRICT) == "1":
            pytest.fail(f"{reason} ({STRICT}=1)", pytrace=False)
        pytest.skip(reason)


def _with_tools(capability: str) -> list[str]:
    """First the tools that a kernel probe uses: it would blame the kernel for their absence, unseen by strict mode."""
    words = KERNEL.get(capability.removeprefix("kernel:"), "").replace(";", " ").split()
    return [*(f"tool:{name}" for name in _PROBE_TOOLS if name in words), capability]


@functools.cache
def missing(capability: str) -> str | None:
    """Why *capability* cannot be had, None if it can. Cached: a kernel does not change during a session."""
    kind, _, name = capability.partition(":")
    if kind == "root" and not name:
        return _missing_root()
    if kind == "tool" and name:
        return None if shutil.which(name, path=tool_path()) else f"needs {capability}: {name} is not installed"
    if kind == "python" and name:
        return None if importlib.util.find_spec(name) else f"needs {capability}: no module {name}"
    if kind == "kernel" and name in KERNEL:
        return _missing_root() or _missing_in_kernel(name)
    known = f"root, tool:NAME, python:MODULE, kernel:{'|'.join(sorted(KERNEL))}"
    raise ValueError(f"unknown capability {capability!r}: {known}")


def _missing_root() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    try:
        Namespace("probe").delete()
    except (RuntimeError, OSError) as failure:
        return f"needs root that may make network namespaces: {failure}"
    return None


def _missing_in_kernel(name: str) -> str | None:
    scratch = Namespace("probe")
    try:
        tried = scratch.run(["sh", "-ec", KERNEL[name]], check=False)
    finally:
        scratch.delete()
    if tried.returncode == 0:
        return None
    said = (tried.stderr.strip() or tried.stdout.strip() or f"exit {tried.returncode}").splitlines()
    return f"needs kernel:{name}: `{KERNEL[name].split(';')[-1].strip()}` says: {said[0]}"
