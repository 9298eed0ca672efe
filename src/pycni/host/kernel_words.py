"""The kernel's refusals in words a user can act on."""

from __future__ import annotations

import errno

from pycni.change import ops, tuning
from pycni.cni.errors import CniError, Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.ops import Op

VLAN_OPS = (ops.EnsureBridge, ops.SetPortVlans, ops.EnsureVlanGateway)
SYSCTL_OPS = (ops.EnsureSysctl, ops.SetSysctl, tuning.TuneSysctl)


def kernel_error(op: Op, failure: OSError) -> CniError:
    """The CNI error for an operation that the kernel refused with *failure*; its errno stays in the details."""
    number = failure.errno or 0
    reason = failure.strerror or str(failure)
    details = f"{errno.errorcode.get(number, number)}: {reason}"
    if number in (errno.EPERM, errno.EACCES):
        return _not_permitted(op, failure, details)
    if isinstance(op, ops.CreateVeth):
        return _veth_error(op, number, details)
    if isinstance(op, VLAN_OPS) and number == errno.EOPNOTSUPP:
        return CniError(
            Code.KERNEL_LACKS,
            "this kernel has no VLAN filtering on bridges (CONFIG_BRIDGE_VLAN_FILTERING)",
            f"{details}; remove vlan and vlanTrunk from the network's configuration or use another kernel",
        )
    what = f"{type(op).__name__} failed"
    if isinstance(op, ops.AddRoute):
        what = f"failed to add route '{op.route.dst} via {op.route.gw} dev {op.link}'"
    elif isinstance(op, ops.AddAddress | ops.EnsureAddress):
        what = f'failed to add IP addr {op.address} to "{op.link}"'
        if op.address.version == 6 and number == errno.EINVAL:
            details += "; IPv6 needs an MTU of at least 1280 bytes (RFC 8200, section 5)"
    elif isinstance(op, SYSCTL_OPS):
        what = f"failed to set sysctl {op.key} to {op.value}"
    elif isinstance(op, tuning.TuneLink):
        what = f"failed to set {_setting(op)} of {op.link}"
    elif isinstance(op, tuning.KeepFile):
        what = f"failed to write {op.path}, from which DEL would restore what there is now"
    elif isinstance(op, ops.EnsureBridge):
        what = f'failed to create bridge "{op.name}": could not add "{op.name}"'
    else:
        details = f"{details}; {op}"
    return CniError(Code.INTERNAL, f"{what}: {reason}", details)


def _setting(op: tuning.TuneLink) -> str:
    """The one setting of *op* that is given."""
    unset = tuning.TuneLink(op.link).as_dict()
    given = {key: value for key, value in op.as_dict().items() if value != unset[key] or type(value) is bool}
    return ", ".join(f"{key} {v.hex(':') if isinstance(v, bytes) else v}" for key, v in given.items())


def _not_permitted(op: Op, failure: OSError, details: str) -> CniError:
    if isinstance(op, ops.AddAddress | ops.EnsureAddress) and op.address.version == 6:
        return CniError(
            Code.INTERNAL,
            f"IPv6 is switched off on {op.link}: {op.address} was refused",
            f"{details}; sysctl net.ipv6.conf.{op.link}.disable_ipv6=0, or remove the IPv6 range",
        )
    if isinstance(op, tuning.TuneSysctl):
        # EACCES: a key of all namespaces, as net.core.rmem_max (net_ctl_permissions, sysctl_net.c); EPERM: a value that
        # is for the host alone, as most of net.ipv4.tcp_congestion_control (tcp_set_default_congestion_control)
        return CniError(
            Code.INTERNAL,
            f"failed to set sysctl {op.key} to {op.value}: {failure.strerror}",
            f"{details}; most likely this key, or this value of it, is for the host alone: set it there, and remove it"
            " from the network; else the plugin lacks CAP_NET_ADMIN or a writable /proc/sys",
        )
    return CniError(
        Code.INTERNAL,
        f"not permitted: {type(op).__name__}",
        f"{details}; the plugin needs CAP_NET_ADMIN and a writable /proc/sys",
    )


def _veth_error(op: ops.CreateVeth, number: int, details: str) -> CniError:
    if number == errno.EEXIST:
        return CniError(
            Code.ALREADY_ATTACHED,
            f'container veth name ("{op.ifname}") peer provided ("{op.host}") already exists',
            f"{details}; the container has an interface {op.ifname}: DEL it first, or attach under another CNI_IFNAME",
        )
    if number in (errno.EXFULL, errno.ENOSPC):
        return CniError(
            Code.EXHAUSTED,
            f'bridge "{op.bridge}" is full: it takes 1023 ports (linux/net/bridge/br_private.h, BR_MAX_PORTS less one)',
            f"{details}; use a second network for further containers",
        )
    return CniError(Code.INTERNAL, f"failed to make veth pair {op.host}: {details}", f"{op}")
