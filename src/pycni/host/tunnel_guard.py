"""Take the VXLAN packets of a network from its known hosts only: table `inet pycni_tunnels` (firewall/tunnel_text.py).

Whoever reaches a host's UDP port could otherwise put frames into any of its networks, and a host that was declared dead
could go on sending from addresses that others have by now. All functions work on the calling thread's namespace, and
one at a time on it: they take an flock on the namespace itself.
"""

from __future__ import annotations

import os
from fcntl import LOCK_EX, flock

from pycni.cni.errors import CniError, Code
from pycni.firewall.nft_text import render_rebuild
from pycni.firewall.tunnel_text import TUNNELS, guarded_element, peer_elements
from pycni.host import nft_compiled
from pycni.host.nfnetlink import open_nfnetlink
from pycni.host.nft_messages import add_chain, add_elements, delete_elements, delete_table, in_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.firewall.rules import Element
    from pycni.host.nfnetlink import Nfnetlink
    from pycni.host.nft_messages import Message


def guard(port: int, vni: int, peers: Iterable[str]) -> None:
    """From now on only packets from *peers* (tunnel addresses) pass; whom it knew before and is not among them, not.

    CniError 104 where the kernel has no nf_tables, 103 where neither libnftables nor nft is there to make the table.
    """
    wanted = peer_elements(port, vni, peers)
    with _Turn() as kernel:
        _ensure_table(kernel)
        old = set(_peers(kernel, port, vni)).difference(wanted)
        # In one transaction: no packet of a known host is dropped, none of a stranger passes.
        _commit(kernel, add=[*wanted, guarded_element(port, vni)], remove=[*old])


def change_peers(port: int, vni: int, add: Iterable[str], remove: Iterable[str] = ()) -> bool:
    """Let further hosts in and others no more; one in both stays in. False, and nothing is changed, where the network
    is not guarded, or no more (somebody flushed the ruleset): `guard` it."""
    more = peer_elements(port, vni, add)
    fewer = peer_elements(port, vni, set(remove).difference(one.key[2] for one in more))
    with _Turn() as kernel:
        if not _is_guarded(kernel, port, vni):
            return False
        there = kernel.find(TUNNELS, fewer)
        _commit(kernel, add=more, remove=[one for one, found in zip(fewer, there, strict=True) if found is not None])
    return True


def read_peers(port: int, vni: int) -> frozenset[str] | None:
    """The hosts whose packets pass; None where the network is not guarded: then everybody's do."""
    with _Turn() as kernel:
        if not _is_guarded(kernel, port, vni):
            return None
        return frozenset(one.key[2] for one in _peers(kernel, port, vni))


def unguard(port: int, vni: int) -> None:
    """Everybody's packets pass, as for a device that is not there any more; with the last network the table goes."""
    mine = guarded_element(port, vni)
    with _Turn() as kernel:
        guarded = kernel.elements(TUNNELS, "guarded")
        if any(one.key != mine.key for one in guarded):
            remove = [one for one in guarded if one.key == mine.key]
            _commit(kernel, add=[], remove=[*remove, *_peers(kernel, port, vni)])
        elif kernel.has_table(TUNNELS.family, TUNNELS.name):
            _committed(kernel, [delete_table(TUNNELS.family, TUNNELS.name)])


class _Turn:
    """A socket in the calling thread's namespace while nobody else changes the table."""

    def __enter__(self) -> Nfnetlink:
        self._lock = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            flock(self._lock, LOCK_EX)
            self._kernel = open_nfnetlink()
        except BaseException:
            os.close(self._lock)
            raise
        return self._kernel

    def __exit__(self, *_: object) -> None:
        # Closing may wait for an RCU grace period (see netfilter_socket): the others need not wait for that.
        os.close(self._lock)
        self._kernel.close()


def _is_whole(kernel: Nfnetlink) -> bool:
    """Whether this version of the table is there with its rules (`nft flush table` leaves sets and chains)."""
    family, name = TUNNELS.family, TUNNELS.name
    if not kernel.has_chain(family, name, TUNNELS.marker()):
        return False
    return all(kernel.chain_use(family, name, chain) >= TUNNELS.least_use(chain) for chain in TUNNELS.chains)


def _ensure_table(kernel: Nfnetlink) -> None:
    if _is_whole(kernel):
        return
    if not kernel.has_nf_tables():
        raise CniError(
            Code.KERNEL_LACKS,
            "this kernel has no nf_tables (CONFIG_NF_TABLES): anybody could send into the tunnels",
            "use a kernel that has it",
        )
    if kernel.has_table(TUNNELS.family, TUNNELS.name):  # of another version, or flushed
        kept = [element for spec in TUNNELS.sets for element in kernel.elements(TUNNELS, spec.name)]
        _run(render_rebuild(TUNNELS, kept))
    else:
        known = nft_compiled.load(TUNNELS)
        if not known or kernel.batch(known):
            _run(TUNNELS.render())
            nft_compiled.keep(kernel, TUNNELS)
    _committed(kernel, [add_chain(TUNNELS, TUNNELS.marker())])


def _run(text: str) -> None:
    from errno import ENOSYS

    from pycni.host import nft

    try:
        nft.run_text(text)
    except OSError as failure:
        if failure.errno != ENOSYS:
            raise
        raise CniError(
            Code.FIREWALL,
            "the tunnels cannot be guarded, and anybody could send into them",
            f"{failure.strerror}: install nftables",
        ) from failure


def _is_guarded(kernel: Nfnetlink, port: int, vni: int) -> bool:
    return _is_whole(kernel) and kernel.find(TUNNELS, [guarded_element(port, vni)]) != [None]


def _peers(kernel: Nfnetlink, port: int, vni: int) -> list[Element]:
    """Two dumps of what all networks have: as many elements as this host has peers."""
    own = (str(port), str(vni))
    return [one for name in ("vteps4", "vteps6") for one in kernel.elements(TUNNELS, name) if one.key[:2] == own]


def _commit(kernel: Nfnetlink, *, add: list[Element], remove: list[Element]) -> None:
    messages = [add_elements(TUNNELS, group) for group in in_groups(add)]
    messages += [delete_elements(TUNNELS, group) for group in in_groups(remove)]
    _committed(kernel, messages)


def _committed(kernel: Nfnetlink, messages: list[Message]) -> None:
    for number in kernel.batch(messages).values() if messages else ():
        raise OSError(number, f"table {TUNNELS.family} {TUNNELS.name}: {os.strerror(number)}")
