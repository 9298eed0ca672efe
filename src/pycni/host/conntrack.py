"""Connection tracking by ctnetlink: find the flows of a port or of a container, and end their tracking.

A flow keeps the translation it began with, and a UDP flow lives as long as the client goes on sending: after a port has
been published or withdrawn, flows that were there before would go on the old way. There is no deleting by pattern: the
flush message takes no filter of addresses (ctnetlink_flush_conntrack: EOPNOTSUPP), so flows are listed, filtered by the
kernel (CTA_FILTER, Linux 5.8; an older one lists more, and here all is compared again), and deleted by their tuple.
Numbers: enum ctattr_type and others in include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
from ipaddress import ip_address

from pycni.cni.value import Value
from pycni.host import netlink
from pycni.host.netfilter_socket import NetfilterSocket, open_kept
from pycni.host.netlink import NLM_F_ACK, NLM_F_DUMP, attribute, attributes, nested, u32
from pycni.host.netlink_socket import NetlinkSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NETLINK_NETFILTER = 12
CT_GET, CT_DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_…
TUPLE_ORIG, TUPLE_REPLY, STATUS, ID, ZONE, FILTER, STATUS_MASK = 1, 2, 3, 12, 18, 25, 26
IPS_DST_NAT = 1 << 5  # enum ip_conntrack_status
TUPLE_IP, TUPLE_PROTO = 1, 2
PROTO_NUM, SRC_PORT, DST_PORT = 1, 2, 3
FILTER_ORIG, FILTER_REPLY = 1, 2
F_IP_SRC, F_PROTO_NUM, F_DST_PORT = 1 << 0, 1 << 3, 1 << 5  # CTA_FILTER_F_… (nf_conntrack_netlink.c)
AF_INET, AF_INET6 = 2, 10
_IP = {4: (AF_INET, 1, 2), 6: (AF_INET6, 3, 4)}  # address family, CTA_IP_V…_SRC, CTA_IP_V…_DST
NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
_NAMES = {number: name for name, number in NUMBERS.items()}


class Flow(Value):
    """One tracked flow, as its first packet was and as its answers are."""

    family: int  # 4 or 6
    proto: str  # "tcp", "udp", "sctp"; "" for another
    source: str
    target: str  # where the client sent it
    source_port: int
    target_port: int
    answers_from: str  # who answers: after DNAT another than `target`
    key: bytes  # what a deletion names it by


class Conntrack(NetfilterSocket, NetlinkSocket):
    """A ctnetlink socket of the namespace that the creating thread is in."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def to_port(self, family: int, proto: str, port: int = 0) -> list[Flow]:
        """The flows of *proto* whose client asked for *port* (0: any)."""
        flags = F_PROTO_NUM | (F_DST_PORT if port else 0)
        wanted = _proto(NUMBERS[proto], port)
        found = self._list(family, nested(TUPLE_ORIG, wanted), FILTER_ORIG, flags)
        return [flow for flow in found if flow.proto == proto and port in (0, flow.target_port)]

    def translated_to(self, address: str) -> list[Flow]:
        """The flows that DNAT leads to *address*."""
        packed = ip_address(address)
        if packed.version == 4:
            tuple_ = nested(TUPLE_REPLY, nested(TUPLE_IP, attribute(_IP[4][1], packed.packed)))
            found = self._list(4, tuple_, FILTER_REPLY, F_IP_SRC)
        else:
            # The kernel's filter takes IPv6 addresses the wrong way round (ctnetlink_filter_match_tuple, where
            # ipv6_addr_cmp is 0 for equal ones; so in 6.18), but filters by status as well.
            found = self.translated(6)
        return [flow for flow in found if flow.answers_from == str(packed) != flow.target]

    def translated(self, family: int = 0) -> list[Flow]:
        """All flows with DNAT, of both families or one."""
        status = IPS_DST_NAT.to_bytes(4, "big")
        return self._dump(family, attribute(STATUS, status), attribute(STATUS_MASK, status))

    def delete(self, flows: Iterable[Flow]) -> None:
        """End the tracking of *flows*; those that ended by themselves do not matter."""
        try:
            self.request(*(_message(CT_DELETE, NLM_F_ACK, flow.family, flow.key) for flow in flows))
        except OSError as failure:
            if failure.errno != errno.ENOENT:
                raise

    def _list(self, family: int, tuple_: bytes, which: int, flags: int) -> list[Flow]:
        # The kernel wants both words of flags, and takes 0 for "does not matter" (ctnetlink_parse_filter).
        words = nested(FILTER, *(u32(one, flags if one == which else 0) for one in (FILTER_ORIG, FILTER_REPLY)))
        return self._dump(family, tuple_, words)

    def _dump(self, family: int, *wanted: bytes) -> list[Flow]:
        try:
            payloads = self.answers(_message(CT_GET, NLM_F_DUMP, family, *wanted))
        except OSError as failure:
            if failure.errno in (errno.EINVAL, errno.ENOENT, errno.EPROTONOSUPPORT):  # a kernel without ctnetlink
                return []
            raise
        return [_flow(payload) for payload in payloads]


def open_conntrack() -> Conntrack:
    """A socket in the calling thread's namespace."""
    return open_kept(Conntrack, "conntrack")


def _message(kind: int, flags: int, family: int, *parts: bytes) -> bytes:
    return netlink.message(kind, flags, bytes((_IP[family][0] if family else 0, 0, 0, 0)), *parts)  # struct nfgenmsg


def _proto(number: int, port: int) -> bytes:
    parts = [attribute(PROTO_NUM, bytes((number,)))]
    if port:
        parts.append(attribute(DST_PORT, port.to_bytes(2, "big")))
    return nested(TUPLE_PROTO, *parts)


def _flow(payload: bytes) -> Flow:
    family = 4 if payload[0] == AF_INET else 6
    found = dict(attributes(payload, 4))
    source, target, proto, source_port, target_port = _tuple(family, found[TUPLE_ORIG])
    key = b"".join(
        nested(kind, found[kind]) if kind == TUPLE_ORIG else attribute(kind, found[kind])
        for kind in (TUPLE_ORIG, ID, ZONE)
        if kind in found
    )
    answers_from = _tuple(family, found[TUPLE_REPLY])[0]
    return Flow(family, proto, source, target, source_port, target_port, answers_from, key)


def _tuple(family: int, data: bytes) -> tuple[str, str, str, int, int]:
    """Source, target, protocol, source port, target port."""
    parts = dict(attributes(data))
    addresses, proto = dict(attributes(parts[TUPLE_IP])), dict(attributes(parts[TUPLE_PROTO]))
    _, source, target = _IP[family]
    ports = (int.from_bytes(proto.get(kind, b""), "big") for kind in (SRC_PORT, DST_PORT))
    name = _NAMES.get(proto[PROTO_NUM][0], "")
    return str(ip_address(addresses[source])), str(ip_address(addresses[target])), name, *ports  # type: ignore[return-value]
