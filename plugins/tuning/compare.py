"""What CHECK compares: the configuration against what the container has. Pure."""

from __future__ import annotations

from pycni.change.tuning import same_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.host.link_facts import Link
    from pycni.plugins.tuning.conf import TuningConf


def differences(
    conf: TuningConf, ifname: str, link: Link | None, sysctls: dict[str, str | None], became: dict[str, str]
) -> tuple[str, ...]:
    """Everything that is not as ADD left it, in words. What the configuration does not name is not compared: a later
    plugin, or somebody with tcpdump, may change it.

    *sysctls*: None for a key that is missing; one that cannot be read is not among them. *became*: what the kernel
    showed right after ADD for values that it writes in a way of its own.
    """
    wrong = [
        f"sysctl {s.key} is {'missing' if sysctls[s.key] is None else sysctls[s.key]} instead of {s.value}"
        for s in conf.sysctls
        if s.key in sysctls
        and not same_value(s.value, sysctls[s.key])
        and (s.key not in became or sysctls[s.key] != became[s.key])
    ]
    if link is None:
        return (*wrong, f"{ifname} is missing")
    if conf.mac and link.mac != conf.mac:
        wrong.append(f"{ifname} has MAC {link.mac.hex(':')} instead of {conf.mac.hex(':')}")
    if conf.mtu and link.mtu != conf.mtu:
        wrong.append(f"{ifname} has an MTU of {link.mtu} instead of {conf.mtu}")
    if conf.promiscuous and not link.promiscuous:
        wrong.append(f"{ifname} is not promiscuous")
    if conf.all_multicast is not None and link.all_multicast != conf.all_multicast:
        wrong.append(f"{ifname} has all-multicast mode {'off' if conf.all_multicast else 'on'}")
    if conf.tx_queue is not None and link.tx_queue != conf.tx_queue:
        wrong.append(f"{ifname} has a queue of {link.tx_queue} packets instead of {conf.tx_queue}")
    return tuple(wrong)
