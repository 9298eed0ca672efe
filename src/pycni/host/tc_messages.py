"""rtnetlink's traffic control as bytes, to the kernel and back: queueing disciplines, filters, ifb devices. Pure.

Constants are named as in linux/pkt_sched.h, pkt_cls.h and tc_act/tc_mirred.h. Requests as in `messages`.
"""

from __future__ import annotations

import struct

from pycni.cni.value import Value
from pycni.host import messages, netlink
from pycni.host.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    attribute,
    attributes,
    nested,
    text,
    to_text,
    u32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.shaping import TokenBucket

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_GETTFILTER = 44, 46

TC_H_ROOT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
ROOT_HANDLE, INGRESS_HANDLE = 0x10000, 0xFFFF0000  # 1: and ffff:, as the reference plugin has them
FIRST_CLASS = 0x10001  # 1:1

TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TCA_U32_CLASSID, TCA_U32_SEL, TCA_U32_ACT = 1, 5, 7
TCA_ACT_KIND, TCA_ACT_OPTIONS = 1, 2
TCA_MIRRED_PARMS = 2
TCA_EGRESS_REDIR, TC_ACT_STOLEN, TC_U32_TERMINAL = 1, 4, 1
TC_LINKLAYER_ETHERNET = 1
ETH_P_ALL = 0x0300  # in network byte order, as the filter's `info` wants it
FIRST_PRIORITY = 1 << 16

NS_A_TICK = 64  # include/net/pkt_sched.h: PSCHED_SHIFT is 6 in every kernel since 2009
NS_A_US = 1000
UINT32 = 2**32 - 1

TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_RATESPEC = struct.Struct("=BBHhHI")  # cell_log, linklayer, overhead, cell_align, mpu, bytes a second
_TBF_TAIL = struct.Struct("=III")  # limit (bytes), buffer (ticks), mtu (ticks, of the peak rate)
_U32_SEL = struct.Struct("=BBBxHHhhI")  # flags, offshift, nkeys, offmask, off, offoff, hoff, hmask
_U32_KEY = struct.Struct("=IIii")  # mask, value, offset, offset mask
_MIRRED = struct.Struct("=IIiiiiI")  # index, capabilities, action, refcnt, bindcnt, eaction, ifindex


class Qdisc(Value):
    """One queueing discipline of a link."""

    index: int  # of the link
    kind: str  # "tbf", "ingress", "noqueue", …
    handle: int
    parent: int
    rate: int = 0  # of tbf: bytes a second
    limit: int = 0  # of tbf: bytes
    buffer: int = 0  # of tbf: the time in which the burst is earned, in ticks, cut to 32 bits by the kernel


def new_tbf(index: int, bucket: TokenBucket) -> bytes:
    """Limit what leaves through a link; EEXIST if it has another discipline than the kernel's own.

    The burst goes as the time in which it is earned, rounded to microseconds as the reference does, so that the CHECK
    of either finds what it expects. Where the kernel would take such a time for less than it is (above 4.29 s,
    tbf_change in sch_tbf.c), or rounding would cost more than a tenth of the burst, it goes in bytes.
    """
    ticks = burst_ticks(bucket)
    whole = ticks * NS_A_TICK <= UINT32 and ticks * NS_A_TICK * bucket.rate >= bucket.burst * 900_000_000
    rate = _RATESPEC.pack(0, TC_LINKLAYER_ETHERNET, 0, 0, 0, min(bucket.rate, UINT32))
    tail = _TBF_TAIL.pack(min(bucket.limit, UINT32), min(ticks, UINT32), 0)
    options = [attribute(TCA_TBF_PARMS, rate + bytes(_RATESPEC.size) + tail)]
    if bucket.rate > UINT32:
        options.append(attribute(TCA_TBF_RATE64, struct.pack("=Q", bucket.rate)))
    if not whole:
        options.append(u32(TCA_TBF_BURST, min(bucket.burst, UINT32)))
    return _new_qdisc(index, ROOT_HANDLE, TC_H_ROOT, "tbf", nested(TCA_OPTIONS, *options))


def burst_ticks(bucket: TokenBucket) -> int:
    """The time in which the burst is earned, in whole microseconds, as ticks: may be more than 32 bits."""
    return bucket.burst * 1_000_000 // bucket.rate * NS_A_US // NS_A_TICK


def new_ingress(index: int) -> bytes:
    """Make room for filters on what comes in by a link; EEXIST if there is such a discipline already."""
    return _new_qdisc(index, INGRESS_HANDLE, TC_H_INGRESS, "ingress")


def redirect_all(index: int, to: int) -> bytes:
    """The filter that leads all that comes in by link *index*, whatever its protocol, out by link *to*."""
    mirred = _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to)
    options = nested(TCA_ACT_OPTIONS, attribute(TCA_MIRRED_PARMS, mirred))
    action = nested(1, attribute(TCA_ACT_KIND, b"mirred\0"), options)  # the first of a list
    everything = _U32_SEL.pack(TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _U32_KEY.pack(0, 0, 0, 0)
    return netlink.message(
        RTM_NEWTFILTER,
        NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
        TCMSG.pack(0, index, 0, INGRESS_HANDLE, FIRST_PRIORITY | ETH_P_ALL),
        text(TCA_KIND, "u32"),
        nested(
            TCA_OPTIONS,
            u32(TCA_U32_CLASSID, FIRST_CLASS),
            attribute(TCA_U32_SEL, everything),
            nested(TCA_U32_ACT, action),
        ),
    )


def delete_tbf(index: int) -> bytes:
    """Take back new_tbf; ENOENT or EINVAL if the link has another discipline, by kind or handle, or none."""
    return _delete_qdisc(index, ROOT_HANDLE, TC_H_ROOT, "tbf")


def delete_ingress(index: int) -> bytes:
    """Take back new_ingress, and with it the filters; ENOENT or EINVAL as with delete_tbf."""
    return _delete_qdisc(index, INGRESS_HANDLE, TC_H_INGRESS, "ingress")


def list_qdiscs() -> bytes:
    """Ask for the disciplines of all links: the kernel does not filter by link here (tc_dump_qdisc, sch_api.c)."""
    return netlink.message(RTM_GETQDISC, NLM_F_DUMP, TCMSG.pack(0, 0, 0, 0, 0))


def list_filters(index: int) -> bytes:
    """Ask for the filters on what comes in by a link."""
    return netlink.message(RTM_GETTFILTER, NLM_F_DUMP, TCMSG.pack(0, index, 0, INGRESS_HANDLE, 0))


def new_ifb(name: str, mtu: int) -> bytes:
    """Create an ifb device, up; EEXIST if the name is taken, EOPNOTSUPP in a kernel without them."""
    header = messages.IFINFOMSG.pack(messages.AF_UNSPEC, 0, 0, messages.IFF_UP, messages.IFF_UP)
    info = nested(messages.IFLA_LINKINFO, attribute(messages.IFLA_INFO_KIND, b"ifb"))
    named = text(messages.IFLA_IFNAME, name) + u32(messages.IFLA_MTU, mtu)
    return netlink.message(messages.RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, header, named, info)


def index_of(payload: bytes) -> int:
    """The link that an answer about a discipline or a filter is about."""
    index: int = TCMSG.unpack_from(payload)[1]
    return index


def read_qdisc(payload: bytes) -> Qdisc:
    """The discipline in the payload of an RTM_NEWQDISC message."""
    _, index, handle, parent, _ = TCMSG.unpack_from(payload)
    found = dict(attributes(payload, TCMSG.size))
    qdisc = Qdisc(index=index, kind=to_text(found.get(TCA_KIND, b"")), handle=handle, parent=parent)
    if qdisc.kind != "tbf":
        return qdisc
    options = dict(attributes(found.get(TCA_OPTIONS, b"")))
    parms = options[TCA_TBF_PARMS]
    limit, buffer, _ = _TBF_TAIL.unpack_from(parms, 2 * _RATESPEC.size)
    rate64 = options.get(TCA_TBF_RATE64)
    rate = struct.unpack("=Q", rate64)[0] if rate64 else _RATESPEC.unpack_from(parms)[5]
    return qdisc.replace(rate=rate, limit=limit, buffer=buffer)


def read_redirection(payload: bytes) -> int:
    """The index of the link to which the filter in an RTM_NEWTFILTER message leads everything; 0 if it does not."""
    found = dict(attributes(payload, TCMSG.size))
    options = dict(attributes(found.get(TCA_OPTIONS, b"")))
    selector = options.get(TCA_U32_SEL, b"")
    if to_text(found.get(TCA_KIND, b"")) != "u32" or len(selector) < _U32_SEL.size + _U32_KEY.size:
        return 0
    if TCMSG.unpack_from(payload)[4] & 0xFFFF != ETH_P_ALL or _U32_KEY.unpack_from(selector, _U32_SEL.size)[0]:
        return 0
    for _, action in attributes(options.get(TCA_U32_ACT, b"")):
        parts = dict(attributes(action))
        mirred = dict(attributes(parts.get(TCA_ACT_OPTIONS, b""))).get(TCA_MIRRED_PARMS, b"")
        if to_text(parts.get(TCA_ACT_KIND, b"")) == "mirred" and len(mirred) >= _MIRRED.size:
            _, _, _, _, _, how, to = _MIRRED.unpack_from(mirred)
            return int(to) if how == TCA_EGRESS_REDIR else 0
    return 0


def _new_qdisc(index: int, handle: int, parent: int, kind: str, options: bytes = b"") -> bytes:
    header = TCMSG.pack(0, index, handle, parent, 0)
    return netlink.message(RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, header, text(TCA_KIND, kind), options)


def _delete_qdisc(index: int, handle: int, parent: int, kind: str) -> bytes:
    # The kernel compares handle and kind, where they are given, with what is there (tc_get_qdisc, sch_api.c).
    return netlink.message(RTM_DELQDISC, NLM_F_ACK, TCMSG.pack(0, index, handle, parent, 0), text(TCA_KIND, kind))
