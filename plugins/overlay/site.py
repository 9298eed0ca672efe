"""A network that this host takes part in: what is kept about it, so that an agent finds it at its start.

One file for each network, `overlay-<network>` beside what the IPAM plugin keeps of the same cluster (ipam/etcd_state).
"""

from __future__ import annotations

import os

from pycni.cni import json_text
from pycni.cni.value import Value
from pycni.ipam.etcd_state import HostState
from pycni.plugins.overlay.conf import L2, LEAST_MTU, MULTICAST, ROUTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pycni.store import Store

__all__ = ["L2", "MULTICAST", "ROUTED", "Joined"]
LEAST_IPV4_MTU = 68  # RFC 791
DIRECTORY = "/run/pycni"  # gone with the boot, as what the kernel knows
WITHOUT_ETCD = "multicast"  # in place of a cluster's prefix, which begins with a slash


class Joined(Value):
    """A network of this host. mode: L2, ROUTED or MULTICAST. vxlan, bridge, uplink: names of links; uplink carries
    `local`.

    local: the address of this host's end of the tunnel. mtu: of the VXLAN device and the bridge, bytes; fixed_mtu:
    whether the configuration gives it, so that it does not follow the uplink; uplink_mtu: bytes, as in the member key.
    connection: the `etcd` object as JSON text, "" without etcd; prefix: of the cluster's keys. fence: of this host when
    it joined. subnets: of the whole network. offload: the configuration's checksumOffload ("auto", "on", "off").
    addresses: of the VXLAN device itself, where it routes: what the host sends from, as "10.1.0.64/32". left: the last
    container went while etcd was silent, so this host's member key is still to be deleted, and nothing else is here.
    """

    network: str
    mode: str
    vni: int
    port: int
    vxlan: str
    bridge: str
    uplink: str
    local: str
    mtu: int
    node: str
    connection: str
    prefix: str
    uplink_mtu: int = 0
    fixed_mtu: bool = False
    fence: int = 0
    subnets: tuple[str, ...] = ()
    group: str = ""
    offload: str = "auto"
    addresses: tuple[str, ...] = ()
    left: bool = False

    @property
    def overhead(self) -> int:
        """Bytes that the tunnel adds to a packet of a container."""
        return overhead(self.local)


def overhead(local: str) -> int:
    """Outer IP header, UDP (8), VXLAN (8) and the inner Ethernet header (14): 50 bytes, over IPv6 70."""
    return 30 + (40 if ":" in local else 20)


def least_mtu(subnets: Iterable[str]) -> int:
    """Bytes that links of a network of *subnets* need. With less the kernel switches a family off on a link, and takes
    its addresses and routes away, which nobody puts back (addrconf_notify and inetdev_event, NETDEV_CHANGEMTU)."""
    return LEAST_MTU if any(":" in subnet for subnet in subnets) else LEAST_IPV4_MTU


def lock_of(network: str) -> str:
    """The owner of the lock (`HostState.lock`) under which this host joins *network* and leaves it."""
    return f"overlay {network}"


def host_state(store: Store, prefix: str) -> HostState:
    """The files of this host for the cluster *prefix*."""
    return HostState(os.path.dirname(store.path), prefix)


def read_joined(state: HostState, network: str) -> Joined | None:
    return _parse(state.overlay(network))


def keep_joined(state: HostState, joined: Joined) -> None:
    state.set_overlay(joined.network, json_text.dumps(joined.as_dict()))


def forget_joined(state: HostState, network: str) -> None:
    state.drop_overlay(network)


def all_joined(directory: str, *, left: bool = False) -> tuple[Joined, ...]:
    """The networks of this host in all clusters; *directory*: of the store. Or those that it *left*, but for etcd."""
    found = [(name, _parse(text)) for name, text in HostState.overlays(directory)]
    # A file that was only half written when its process died has another name than what it tells of.
    return tuple(
        joined
        for name, joined in found
        if joined is not None and joined.connection and (joined.network, joined.left) == (name, left)
    )


def find_joined(directory: str, network: str) -> Joined | None:
    """The network of that name, whatever its cluster is."""
    found = (_parse(text) for name, text in HostState.overlays(directory) if name == network)
    return next((joined for joined in found if joined is not None and joined.network == network), None)


def _parse(text: str) -> Joined | None:
    """None for a file that is not there, or that another version wrote: the next ADD writes it anew."""
    try:
        told: dict[str, Any] = json_text.loads(text) if text else {}
        fields: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in told.items()}
        return Joined(**fields) if fields else None
    except (AttributeError, TypeError, ValueError):
        return None


# -- what this host was made to know ----------------------------------------------------------------------------------


def noted(network: str) -> int:
    """Up to which revision this host was made to know the peers of *network* last; 0: never since its start."""
    try:
        with open(note_path(network), encoding="ascii") as file:
            text = file.read()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def note(network: str, revision: int) -> None:
    """For CHECK: what came later is not missing, since nobody follows. What fails is left undone: CHECK sees less."""
    fresh = f"{note_path(network)}.{os.getpid()}"
    try:
        os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
        with open(fresh, "w", encoding="ascii") as file:
            file.write(str(revision))
        os.rename(fresh, note_path(network))
    except OSError:
        pass


def forget_note(network: str) -> None:
    try:
        os.unlink(note_path(network))
    except OSError:
        pass


def note_path(network: str) -> str:
    return f"{DIRECTORY}/overlay-{network}"
