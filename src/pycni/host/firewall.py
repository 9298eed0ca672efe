"""The packet filter as the plugins see it: one protocol, two backends and none.

Who calls what: ADD apply_add; DEL apply_delete and, with the host's last attachment, remove_all; CHECK missing; GC
collect. Deletions of shared things are decided by the caller under the store's lock: an ADD has written its record
before it comes here, so nobody removes what it is about to rely on.
"""

from __future__ import annotations

import errno

from pycni.cni.errors import CniError, Code
from pycni.firewall.choose import Available, check_backend, choose_backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from typing import Protocol

    from pycni.firewall.rules import AttachmentRules, NetworkRules

    Everyone = AbstractContextManager[Iterable[tuple[NetworkRules, AttachmentRules]]]

    class Firewall(Protocol):
        """All of it is idempotent and raises CniError 103 (with the next step) or OSError."""

        name: str

        def apply_add(
            self, network: NetworkRules, attachment: AttachmentRules, everyone: Everyone | None = None
        ) -> None:
            """Put in place what *attachment* needs. *everyone* is entered where the whole ruleset was gone (somebody
            flushed it), so that those of the host's other attachments are put back too; until it is left nobody may
            remove any of them. It can be entered again."""

        def apply_delete(
            self, attachment: AttachmentRules, network: NetworkRules | None = None, others: Iterable[NetworkRules] = ()
        ) -> None:
            """Remove what *attachment* owns. Give *network* where shared parts may have lost their last user, with the
            rules of all *others* that stay on the host: what none of them needs goes too."""

        def remove_all(self) -> None:
            """Remove every trace: nobody on this host needs the firewall any more."""

        def missing(self, network: NetworkRules, attachment: AttachmentRules) -> tuple[str, ...]:
            """What of an attachment's rules is not in the kernel, in words; () if all of it is."""

        def repair(self) -> None:
            """Make sure that the next apply_add also puts back rules that somebody removed from chains of ours."""

        def owners(self) -> frozenset[str]:
            """The owners (attachments, or networks where rules are per network) that have rules now."""

        def collect(self, wanted: Iterable[tuple[NetworkRules, AttachmentRules]]) -> tuple[str, ...]:
            """Remove everything that none of *wanted* needs; what was removed, in words."""

        def close(self) -> None:
            """Give sockets back. May wait for the kernel to free what was deleted: close last."""


_tables_later: Callable[[], bool] | None = None


def remove_tables_by(later: Callable[[], bool] | None) -> None:
    """For a resident process: *later* is asked with a host's last rules, and answers whether it will see to it that
    their empty tables go (remove_all). None: they go with the rules."""
    global _tables_later  # noqa: PLW0603 - a property of the process
    _tables_later = later


def remove_last(firewall: Firewall, network: NetworkRules, attachment: AttachmentRules) -> None:
    """Remove the rules of the host's only attachment, and every other trace, now or later."""
    if firewall.name == "nftables" and _tables_later is not None and _tables_later():
        firewall.apply_delete(attachment, network)
    else:
        firewall.remove_all()


def open_firewall(backend: str = "") -> Firewall:
    """The firewall *backend* ("nftables", "iptables", "none"; "": what this host has).

    Acts in the network namespace of the calling thread. CniError 7 for an unknown name, 103 where the host lacks it.
    """
    check_backend(backend)
    if backend == "none":
        return NoFirewall()
    # On the way of every ADD: look only for what decides. nf_tables in the kernel is asked, not guessed.
    if backend != "iptables":
        from pycni.host.nftables import NftFirewall, open_usable

        nftables = NftFirewall() if backend == "nftables" else open_usable()
        if nftables is not None:
            return nftables
    from pycni.host.iptables import installed
    from pycni.host.iptables_firewall import IptablesFirewall

    choose_backend(backend, Available(nftables=False, iptables=installed()))
    return IptablesFirewall()


def missing_rules(backend: str, network: NetworkRules, attachment: AttachmentRules) -> tuple[str, ...]:
    """Firewall.missing, of the *backend* that an attachment's ADD used; () where that was none."""
    if backend in ("", "none"):
        return ()
    firewall = open_firewall(backend)
    try:
        return firewall.missing(network, attachment)
    finally:
        firewall.close()


def refused(failure: OSError, what: str) -> CniError:
    """*failure* of the packet filter as CniError 103, with what to do about it."""
    hints = {
        errno.EPERM: "CAP_NET_ADMIN is needed in the host's network namespace",
        errno.ENOSYS: 'install libnftables1 or nftables, or set "ipMasqBackend": "iptables"',
        errno.EOPNOTSUPP: "the kernel lacks nf_tables or one of its modules (nft_masq, nf_nat)",
    }
    return CniError(Code.FIREWALL, f"{what}: {failure.strerror or failure}", hints.get(failure.errno or 0, ""))


class NoFirewall:
    """`"backend": "none"`: the packet filter is somebody else's."""

    name = "none"

    def apply_add(self, network: NetworkRules, attachment: AttachmentRules, everyone: Everyone | None = None) -> None:
        pass

    def apply_delete(
        self, attachment: AttachmentRules, network: NetworkRules | None = None, others: Iterable[NetworkRules] = ()
    ) -> None:
        pass

    def remove_all(self) -> None:
        pass

    def missing(self, network: NetworkRules, attachment: AttachmentRules) -> tuple[str, ...]:
        return ()

    def repair(self) -> None:
        pass

    def owners(self) -> frozenset[str]:
        return frozenset()

    def collect(self, wanted: Iterable[tuple[NetworkRules, AttachmentRules]]) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        pass
