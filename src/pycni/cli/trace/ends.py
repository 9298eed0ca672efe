"""SRC and DST of the command line → which containers, of which hosts, they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from pycni.agent.view import Seen
from pycni.cli.failure import NOT_FOUND, USAGE, Failure
from pycni.cli.trace.cluster import Cluster
from pycni.cli.trace.facts import ELSEWHERE, HERE, HOST, LOOPBACK, OUTSIDE, End
from pycni.plugins.overlay.conf import ROUTED

Address = IPv4Address | IPv6Address
Found = tuple[End, Seen | None]
SHORTEST_PREFIX = 4  # fewer characters of a container id are not taken for one


def find_end(
    text: str, seen: Sequence[Seen], clusters: Sequence[Cluster], is_own: Callable[[Address], bool]
) -> list[Found]:
    """What *text* may mean, [] for nothing: of a container with several interfaces each one.

    An address, a container id (or the beginning of one), CONTAINER/IFNAME, or NETWORK/CONTAINER/IFNAME. What is on
    this host counts before what other hosts have. An address leaves the end only that one. *is_own*: whether an
    address is this host's itself.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return _by_name(text, seen, clusters)
    mine = (str(address),)
    here = [(_end_of(one).replace(addresses=mine), one) for one in seen if mine[0] in _addresses(one)]
    if here:
        return [*here]
    if is_own(address):
        return [(End(HOST, addresses=mine), None)]
    for cluster in clusters:
        end = _holder(cluster, address)
        if end is not None:
            return [(end.replace(addresses=mine), None)]
    return [(End(OUTSIDE, addresses=mine), None)]


def _addresses(one: Seen) -> list[str]:
    return [text.partition("/")[0] for text in one.record.addresses]


def _end_of(one: Seen) -> End:
    owner = one.record.attachment
    return End(HERE, owner.network, owner.container_id, owner.ifname, tuple(_addresses(one)))


def _by_name(text: str, seen: Sequence[Seen], clusters: Sequence[Cluster]) -> list[Found]:
    words = text.split("/")
    if len(words) > 3 or not all(words):
        raise Failure(
            f"{text!r} is no container, attachment or address",
            exit_code=USAGE,
            next_step="CONTAINER, CONTAINER/IFNAME, NETWORK/CONTAINER/IFNAME, or an address",
        )
    network = words.pop(0) if len(words) == 3 else ""
    container, ifname = words[0], words[1] if len(words) > 1 else ""

    def fits(has: tuple[str, str, str], *, exactly: bool) -> bool:
        same = has[1] == container or (
            not exactly and len(container) >= SHORTEST_PREFIX and has[1].startswith(container)
        )
        return same and network in ("", has[0]) and ifname in ("", has[2])

    for exactly in (True, False):
        here = [
            (_end_of(one), one)
            for one in seen
            if fits(
                (one.record.attachment.network, one.record.attachment.container_id, one.record.attachment.ifname),
                exactly=exactly,
            )
        ]
        if here:
            return [*here]
        there = [
            (end, None)
            for cluster in clusters
            for end in cluster.endpoints()
            if fits((end.network, end.container, end.ifname), exactly=exactly)
        ]
        if there:
            return [*there]
    return []


def _holder(cluster: Cluster, address: Address) -> End | None:
    """The host of *cluster*'s network that has *address*."""
    joined = cluster.joined
    found = cluster.endpoint(address)
    if found is not None:
        return End(ELSEWHERE, joined.network, found.container, found.ifname, found.ips, found.node)
    if joined.mode == ROUTED:
        for block, node in cluster.blocks():
            if address in ip_network(block) and node != joined.node:
                return End(ELSEWHERE, joined.network, addresses=(str(address),), node=node)
    return None


def choose_both(
    texts: tuple[str, str], found: tuple[Sequence[Found], Sequence[Found]], clusters: Sequence[Cluster]
) -> tuple[Found, Found]:
    """The one thing that each of *texts* means: of several interfaces that of the network where the other one is."""
    networks = [{end.network for end, _ in each} for each in found]
    source = [each for each in found[0] if each[0].network in networks[1]] or found[0]
    target = [each for each in found[1] if each[0].network in networks[0]] or found[1]
    return _choose(texts[0], source, clusters), _choose(texts[1], target, clusters)


def _choose(text: str, found: Sequence[Found], clusters: Sequence[Cluster]) -> Found:
    """Failure for none or several."""
    if len(found) == 1:
        _refuse_lost(found[0][0], clusters)
        return found[0]
    if found:
        names = "\n".join(f"{end.network}/{end.container}/{end.ifname}" for end, _ in found)
        raise Failure(
            f"{text!r} means {len(found)} interfaces",
            exit_code=USAGE,
            facts=[("candidates", names)],
            next_step="say which: CONTAINER/IFNAME or NETWORK/CONTAINER/IFNAME",
        )
    silent = [f"{cluster.joined.network}: {cluster.silent}" for cluster in clusters if cluster.silent]
    looked = ["attachments of pycni on this host (`pycni list`)"]
    looked += [f"network {cluster.joined.network} in etcd" for cluster in clusters if not cluster.silent]
    raise Failure(
        f"no container called {text!r}",
        exit_code=NOT_FOUND,
        code=3,
        facts=[("looked in", "\n".join(looked)), *([("silent", "\n".join(silent))] if silent else [])],
        next_step="containers of other hosts are known in l2 networks by id and address, in routed ones by address",
    )


def _refuse_lost(end: End, clusters: Sequence[Cluster]) -> None:
    """What etcd says is on this host, and no attachment of this host knows."""
    if end.place == ELSEWHERE and any(end.node == cluster.joined.node for cluster in clusters):
        raise Failure(
            f"etcd says that {end.name} is on this host, which has no such attachment",
            exit_code=NOT_FOUND,
            code=3,
            next_step=f"an ADD was killed, or the state was lost: `pycni gc {end.network}` gives its address back",
        )


def by_loopback(source: Found, target: Found) -> tuple[Found, Found]:
    """Both ends; the sender's by its lo where the packet stays in that container: to itself, or to a loopback address,
    which is its own and not the host's."""
    (start, mine), (goal, its) = source, target
    if mine is None:
        return source, target
    if goal.place == HOST and ip_address(goal.addresses[0]).is_loopback:
        own = start.replace(ifname=LOOPBACK, addresses=goal.addresses), mine
        return own, own
    if its is not None and its.record.netns == mine.record.netns:
        return (start.replace(ifname=LOOPBACK), mine), target
    return source, target


def addresses_of(source: End, target: End) -> tuple[Address, Address]:
    """The addresses that the packet has: of a family that both ends have, IPv4 before IPv6."""
    for version in (4, 6):
        pair = [
            next((each for each in map(ip_address, end.addresses) if each.version == version), None)
            for end in (source, target)
        ]
        if pair[0] is not None and pair[1] is not None:
            return pair[0], pair[1]
    raise Failure(
        f"{source.name} and {target.name} have no address of the same family",
        exit_code=USAGE,
        facts=[(end.name, ", ".join(end.addresses) or "no address") for end in (source, target)],
    )
