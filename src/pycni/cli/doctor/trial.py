"""Try what the plugins need of the kernel. Run as a program of its own, in a network namespace that ends with it.

Prints a JSON object: ability → "" or why not.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from pycni.cni.errors import CniError
from pycni.host import messages, nft
from pycni.host.netns import OWN, open_netns
from pycni.host.rtnl import Netlink

_NAT = """table inet pycni_trial {
    chain post { type nat hook postrouting priority 100; policy accept; ip saddr 192.0.2.1 masquerade; }
}
"""
_BRIDGE_FILTER = """table bridge pycni_trial {
    chain pre { type filter hook prerouting priority -300; policy accept; }
}
"""


def _attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except (OSError, CniError) as exc:
        return str(getattr(exc, "strerror", None) or exc)
    return ""


def abilities() -> dict[str, str]:
    """Each ability by name."""
    fd = open_netns(OWN)
    with Netlink() as kernel:
        return {
            "veth pairs": _attempt(
                lambda: kernel.request(messages.new_veth(host="trial0", peer="trial1", netns_fd=fd))
            ),
            "bridges": _attempt(lambda: kernel.request(messages.new_bridge("trialbr"))),
            "VLAN filtering": _attempt(lambda: kernel.request(messages.new_bridge("trialbrv", vlan_filtering=True))),
            "nftables NAT": _attempt(lambda: nft.run_text(_NAT)),
            "nftables on bridges": _attempt(lambda: nft.run_text(_BRIDGE_FILTER)),
        }


def main() -> int:
    """Print the abilities of the kernel, as tried in the namespace of this process."""
    print(json.dumps(abilities()))
    return 0
