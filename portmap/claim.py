"""Taking host ports for an attachment: from the other attachments by the store, from foreign processes by the holder.

Both in the order that leaves no gap: the record with its ports is written before anything is asked of the kernel.
"""

from __future__ import annotations

from pycni.change.claims import Claim
from pycni.cni.errors import CniError, Code
from pycni.host import listeners, sysctl
from pycni.portmap import plan
from pycni.portmap.facts import read_setting
from pycni.portmap.holding import Binding, holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.cni.names import Attachment
    from pycni.host.rtnl import Netlink
    from pycni.portmap.facts import Wanted
    from pycni.portmap.plan import Service
    from pycni.portmap.ports import Taken as TakenBy
    from pycni.store import Store
    from pycni.store.attachments import Record

    Busy = dict[tuple[int, str, str], frozenset[int]]  # (family, protocol, host address) to what has a socket there

ATTEMPTS = 10  # at ports of our own choice: one that is bound without listening is in no list of the kernel


class Taken(CniError):
    """A port is another attachment's."""

    def __init__(self, wanted: Claim, have: Claim, owner: Attachment) -> None:
        super().__init__(
            Code.PORT_TAKEN,
            f"host port {wanted} is taken by container {owner.container_id} of network {owner.network}",
            f"its interface {owner.ifname} has {have}; choose another hostPort, or DEL that container",
        )
        self.owner = owner


def claim(store: Store, host: Netlink, record: Record, wanted: Wanted) -> tuple[Record, tuple[Service, ...]]:
    """Write *record* with all that it is going to own, its ports among it: the record as it then is, and the services
    with their ports. CniError 100 names who has a port.

    *host*: a socket in the host's namespace. An attachment whose container is gone holds no port: it is released.
    """
    while True:
        try:
            with store.transaction():
                chosen = _claim(store, host, record, wanted)
                store.attachments.begin(chosen[0])
                return chosen
        except Taken as failure:
            _release_dead(store, host, failure)


def choose_again(store: Store, host: Netlink, record: Record, wanted: Wanted) -> tuple[Record, tuple[Service, ...]]:
    """The same for a record that stands, with other ports where the choice is ours: none that the host has a socket
    for. CniError 101 where none is left."""
    busy = _busy(wanted.services)
    with store.transaction():
        chosen = _claim(store, host, record, wanted, busy)
        store.attachments.update(chosen[0])
        return chosen


def reserve(owner: str, services: Sequence[Service]) -> None:
    """Take the ports from the processes of this host; CniError 100 names the one that has it."""
    holder().reserve(owner, tuple(binding(one) for one in services))


def binding(one: Service) -> Binding:
    each = one.mapping
    return Binding(
        one.family,
        each.proto,
        each.host_ip,
        each.low,
        one.address,
        each.port,
        one.proxied,
        each.proxy_protocol,
        each.high - each.low + 1,
    )


def _claim(
    store: Store, host: Netlink, record: Record, wanted: Wanted, busy: Busy | None = None
) -> tuple[Record, tuple[Service, ...]]:
    own = record.attachment
    services = wanted.services
    for one in services:
        if one.mapping.low:
            _refuse_taken(store, one.claim, own)
    choices = plan.open_choices(services)
    if choices:
        services = plan.numbered(services, _choose(store, own, services, choices, busy))
        plan.refuse_clash(services)
    store.host_ports.take(own, (one.claim for one in services))
    settings = plan.settings(wanted.conf, services, wanted.facts)
    for link, setting in settings:
        before = store.host_ports.before(link, setting)
        store.host_ports.keep(own, link, setting, read_setting(host, link, setting) if before is None else before)
    loopback6 = wanted.facts.loopback6(wanted.conf)
    rules = plan.attachment_rules(wanted.conf, own, services, wanted.everything, loopback6=loopback6)
    network = plan.network_rules(wanted.conf, own.network, wanted.addresses, settings, wanted.facts)
    return record.replace(network_rules=network, attachment_rules=rules), services


def _refuse_taken(store: Store, wanted: Claim, own: Attachment) -> None:
    found = store.host_ports.holder(wanted, besides=own)
    if found is not None:
        raise Taken(wanted, *found)


def _choose(
    store: Store,
    own: Attachment,
    services: Sequence[Service],
    choices: dict[tuple[str, int], list[Service]],
    busy: Busy | None,
) -> dict[tuple[str, int], int]:
    """A host port for each of *choices*, remembered as chosen: the former one, unless that was tried, and *busy* is
    known since."""
    from pycni.portmap import ports

    within = _to_choose_from()
    reserved = ports.reserved_ports(sysctl.read("net/ipv4/ip_local_reserved_ports"))
    mine = tuple(one.claim for one in services if one.mapping.low)
    after = store.host_ports.last_chosen()
    chosen: dict[tuple[str, int], int] = {}
    for (proto, port), group in choices.items():
        wish = store.host_ports.chosen(own, proto, port) if busy is None else 0
        taken = _taken(store, own, mine, group, busy or {})
        number = ports.choose_port(within, reserved, wish=wish, after=after, taken=taken)
        chosen[proto, port] = after = number
        mine += tuple(plan.with_port(one, number).claim for one in group)
        store.host_ports.choose(own, proto, port, number)
    return chosen


def _to_choose_from() -> tuple[int, int]:
    from pycni.portmap import ports

    return ports.port_range(sysctl.read("net/ipv4/ip_local_port_range"))


def _busy(services: Sequence[Service]) -> Busy:
    """Where the host itself has sockets, of clients too, for those of *services* that are still without a port."""
    from pycni.host import sock_diag

    places = {(one.family, one.mapping.proto, one.mapping.host_ip) for one in services if not one.mapping.low}
    return {
        place: frozenset(one.port for one in sock_diag.conflicting(*place, *_to_choose_from(), connected=True))
        for place in places
        if place[1] in listeners.PROTOCOLS
    }


def _taken(store: Store, own: Attachment, mine: Sequence[Claim], group: Sequence[Service], busy: Busy) -> TakenBy:
    """What has a port that all services of *group* are to get: the host, another attachment, or one of *mine*."""

    def taken(number: int) -> Claim | None:
        for wanted in (plan.with_port(one, number).claim for one in group):
            if number in busy.get((wanted.family, wanted.proto, wanted.host_ip), ()):
                return wanted
            found = store.host_ports.holder(wanted, besides=own)
            have = found[0] if found is not None else next((one for one in mine if one.excludes(wanted)), None)
            if have is not None:
                return have
        return None

    return taken


def _release_dead(store: Store, host: Netlink, failure: Taken) -> None:
    """Release the attachment in the way, if its container is gone for certain; else raise *failure*."""
    record = store.attachments.get(failure.owner)
    if record is None:
        return  # gone meanwhile, and the port with it
    from pycni.attach.liveness import is_dead

    if not is_dead(record, host) or not store.attachments.claim(record):
        raise failure
    from pycni.portmap.delete import release_record

    release_record(store, record)
