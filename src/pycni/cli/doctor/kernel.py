"""What the kernel can do, found out by doing it in a namespace that nobody else sees."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pycni.cli.doctor.finding import FAIL, OK, WARN, Finding
from pycni.cli.launcher import interpreter, package_parent
from pycni.host import program

_NEEDED_BY = {
    "veth pairs": (FAIL, "no container can be attached", "modprobe veth, or a kernel with CONFIG_VETH"),
    "bridges": (FAIL, "the bridge plugin cannot work", "modprobe bridge, or a kernel with CONFIG_BRIDGE"),
    "VLAN filtering": (
        WARN,
        'networks with "vlan" or "vlanTrunk" fail; all others work',
        "a kernel with CONFIG_BRIDGE_VLAN_FILTERING, if you need VLANs",
    ),
    "nftables NAT": (
        WARN,
        "ipMasq falls back to iptables where that is installed, and fails where not",
        "install libnftables1 (or nftables); modprobe nft_masq, or a kernel with CONFIG_NFT_MASQ",
    ),
    "nftables on bridges": (
        WARN,
        'networks with "macspoofchk" fail; all others work',
        "a kernel with CONFIG_NF_TABLES_BRIDGE, if you need it",
    ),
}


def try_abilities() -> dict[str, str]:
    """ability → "" or why not, from a process in a new network namespace; OSError if there can be none."""
    unshare = program.find("unshare")
    if unshare is None:
        raise OSError("the program unshare (package util-linux) is not installed")
    code = f"import sys; sys.path.append({package_parent()!r}); from pycni.cli.doctor.trial import main; main()"
    status, out, err = program.run((unshare, "--net", interpreter(), "-ISE", "-c", code))
    if status:
        raise OSError(err.strip().splitlines()[-1] if err.strip() else f"unshare ended with status {status}")
    answer = json.loads(out)
    return {str(name): str(reason) for name, reason in answer.items()}


def check_abilities() -> Iterator[Finding]:
    """One finding for each ability."""
    for name, reason in try_abilities().items():
        level, meaning, action = _NEEDED_BY[name]
        if reason:
            yield Finding(level=level, check=name, found=f"not possible: {reason}", meaning=meaning, action=action)
        else:
            yield Finding(level=OK, check=name, found="possible")
