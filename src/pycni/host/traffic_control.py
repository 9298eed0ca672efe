"""Traffic control: the operations of pycni.change.shaping carried out, and what the kernel has, as values."""

from __future__ import annotations

import errno

from pycni.change import ops, shaping
from pycni.cni.errors import CniError, Code
from pycni.host import messages, tc_messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pycni.change.ops import Op
    from pycni.host.apply import Kernel
    from pycni.host.rtnl import Netlink
    from pycni.host.tc_messages import Qdisc

# ENOENT: none there; EINVAL: another one, or only the kernel's own (tc_get_qdisc, sch_api.c); ENODEV: no link
_GONE = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
# what the kernel says of a kind of device, discipline, classifier or action that it has not (ifb; tbf, u32, mirred)
_LACKING = (errno.EOPNOTSUPP, errno.ENOENT)


def qdiscs(socket: Netlink, *indexes: int) -> dict[int, tuple[Qdisc, ...]]:
    """The queueing disciplines of these links; reads those of all links of the namespace, so not for ADD or DEL."""
    found: dict[int, list[Qdisc]] = {index: [] for index in indexes}
    for payload in socket.answers(tc_messages.list_qdiscs()):
        if tc_messages.index_of(payload) in found:
            found[tc_messages.index_of(payload)].append(tc_messages.read_qdisc(payload))
    return {index: tuple(each) for index, each in found.items()}


def redirections(socket: Netlink, index: int) -> tuple[int, ...]:
    """For each filter on what comes in by link *index* the index of the link to which it leads everything, 0 for one
    that does something else."""
    try:
        payloads = socket.answers(tc_messages.list_filters(index))
    except OSError as failure:
        if failure.errno not in _GONE:
            raise
        return ()  # no discipline that could hold filters
    return tuple(map(tc_messages.read_redirection, payloads))


def stop_shaping(socket: Netlink, link: int, *, incoming: bool) -> None:
    """Remove our queueing discipline of what comes in by a link, with its filters, or else of what leaves by it; none
    there is fine, and somebody else's stays."""
    try:
        socket.request(tc_messages.delete_ingress(link) if incoming else tc_messages.delete_tbf(link))
    except OSError as failure:
        if failure.errno not in _GONE:
            raise


def _limit_rate(kernel: Kernel, op: shaping.LimitRate) -> Op | None:
    link = kernel.link(ops.HOST, op.link)
    try:
        kernel.host.request(tc_messages.new_tbf(link.index, op.bucket))
    except OSError as failure:
        raise _in_words(failure, op.link, "tbf (CONFIG_NET_SCH_TBF)") from failure
    return None if link.kind == "ifb" else shaping.StopShaping(op.link, incoming=False)  # an ifb takes it along


def _create_ifb(kernel: Kernel, op: shaping.CreateIfb) -> Op:
    try:
        kernel.host.request(tc_messages.new_ifb(op.name, op.mtu))
    except OSError as failure:
        if failure.errno == errno.EEXIST:
            raise CniError(
                Code.ALREADY_ATTACHED,
                f"the device {op.name}, through which the container's packets would be led, exists already",
                "an ADD of this container came before, of ours or of another plugin: DEL it first",
            ) from failure
        if failure.errno in _LACKING:
            raise _lacks("ifb devices (CONFIG_IFB)", failure) from failure
        raise
    try:
        # Not in one go with the creation, which may find somebody else's device: that would get our mark.
        kernel.host.request(messages.set_link(op.name, alias=op.alias))
    except OSError:
        kernel.host.request(messages.delete_link(op.name))
        raise
    return ops.DeleteLink(op.name)


def _redirect_ingress(kernel: Kernel, op: shaping.RedirectIngress) -> Op:
    link = kernel.link(ops.HOST, op.link)
    filtered = tc_messages.redirect_all(link.index, kernel.link(ops.HOST, op.to).index)
    try:
        kernel.host.request(tc_messages.new_ingress(link.index))
    except OSError as failure:
        raise _in_words(failure, op.link, "the ingress discipline (CONFIG_NET_SCH_INGRESS)") from failure
    try:
        kernel.host.request(filtered)
    except OSError as failure:
        kernel.host.request(tc_messages.delete_ingress(link.index))
        if failure.errno in _LACKING:
            raise _lacks(
                "u32 filter with a mirred action (CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED)", failure
            ) from failure
        raise
    return shaping.StopShaping(op.link, incoming=True)


def _stop_shaping(kernel: Kernel, op: shaping.StopShaping) -> None:
    link = kernel.host.link(op.link)
    if link is not None:
        stop_shaping(kernel.host, link.index, incoming=op.incoming)


def _in_words(failure: OSError, link: str, what: str) -> OSError | CniError:
    if failure.errno == errno.EEXIST:
        return CniError(
            Code.ALREADY_ATTACHED,
            f"{link} has a queueing discipline already: its rate is limited by an earlier ADD, or by somebody else",
            f"EEXIST: {failure.strerror}; tc qdisc show dev {link} shows it; DEL the container first",
        )
    return _lacks(what, failure) if failure.errno in _LACKING else failure


def _lacks(what: str, failure: OSError) -> CniError:
    name = errno.errorcode.get(failure.errno or 0, failure.errno)
    return CniError(
        Code.KERNEL_LACKS,
        f"this kernel has no {what}",
        f"{name}: {failure.strerror}; remove the bandwidth limits or use another kernel",
    )


ACTS: dict[type[Op], Any] = {
    shaping.LimitRate: _limit_rate,
    shaping.CreateIfb: _create_ifb,
    shaping.RedirectIngress: _redirect_ingress,
    shaping.StopShaping: _stop_shaping,
}
