"""The `ipam` object of `pycni-ipam` and `host-local` as a value (docs/ipam.md has every key).

Refusals are CniError 7 with the reference host-local's sentences where it has one.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network

from pycni.cni.addresses import parse_address, parse_cidr
from pycni.cni.conf import Keys
from pycni.cni.env import parse_args
from pycni.cni.errors import CniError, Code, shown
from pycni.cni.result import Dns, Route, parse_route
from pycni.cni.value import Value
from pycni.cni.versions import at_least
from pycni.ipam.ranges import Range, RangeSet, make_range, make_set, make_subnet, overlap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pycni.cni.addresses import Address, Interface, Network
    from pycni.cni.conf import NetConf

DATA_DIR = "/var/lib/cni/networks"


class IpamConf(Value):
    """The checked config of an ADD.

    data_dir names the pool together with the network; requested are addresses that the caller asks for, without
    doubles, in the order CNI_ARGS, args.cni, runtimeConfig; resolv_conf is a path, "" for none.
    """

    data_dir: str
    sets: tuple[RangeSet, ...]
    requested: tuple[IPv4Address | IPv6Address, ...]
    routes: tuple[Route, ...]
    resolv_conf: str


def parse_ipam(conf: NetConf, cni_args: str = "") -> IpamConf:
    """The checked config of ADD and STATUS; *cni_args* is the text of CNI_ARGS. CniError 7 and 4."""
    if not conf.keys.has("ipam"):
        raise CniError(Code.INVALID_CONFIG, "IPAM config missing 'ipam' key")
    requested = _requested(conf, cni_args)
    sets = parse_sets(conf)
    _check_families(sets, conf.cni_version)
    return IpamConf(
        data_dir=data_dir(conf),
        sets=sets,
        requested=requested,
        routes=tuple(parse_route(each) for each in conf.ipam.objects("routes")),
        resolv_conf=conf.ipam.text("resolvConf"),
    )


def data_dir(conf: NetConf) -> str:
    """What names the pool together with the network. Never refuses: DEL must release whatever else the config says."""
    value = conf.ipam.raw("dataDir")
    if not isinstance(value, str) or not value:
        return DATA_DIR
    # One directory, one pool: "/run/x/" is "/run/x". What .. leads to is left to the file system.
    first, *more = value.split("/")
    return "/".join((first, *filter(None, more))) or "/"


def parse_sets(conf: NetConf) -> tuple[RangeSet, ...]:
    """The range sets in the reference's order: runtimeConfig.ipRanges, the keys of `ipam` itself, ipam.ranges."""
    raw = [*_lists(conf.runtime, "ipRanges")]
    if conf.ipam.has("subnet"):
        raw.append((conf.ipam,))
    raw += _lists(conf.ipam, "ranges")
    if not raw:
        raise CniError(
            Code.INVALID_CONFIG, "no IP ranges specified", 'give ipam "subnet": "10.1.0.0/24", or "ranges" for several'
        )
    excluded = tuple(_excluded(conf.ipam, at, text) for at, text in enumerate(conf.ipam.texts("exclude")))
    sets = tuple(_set(at, each, excluded) for at, each in enumerate(raw))
    for at, one in enumerate(sets):
        for before, other in enumerate(sets[:at]):
            if any(overlap(mine, its) for mine in one.ranges for its in other.ranges):
                raise CniError(Code.INVALID_CONFIG, f"range set {before} overlaps with {at}", f"{other} and {one}")
    return sets


def range_gateways(conf: NetConf) -> tuple[Interface, ...]:
    """The gateway of every range with the length of its subnet; () where the ranges are not in these keys, as with
    other IPAM plugins."""
    try:
        ranges = [each for ranges in parse_sets(conf) for each in ranges.ranges]
    except CniError:
        return ()
    within = [each for each in ranges if each.gateway.version == each.version]
    return tuple(ip_interface((each.gateway, each.subnet.prefixlen)) for each in within)


def _set(at: int, ranges: Sequence[Keys], excluded: Sequence[Network]) -> RangeSet:
    try:
        return make_set([_range(keys) for keys in ranges], excluded)
    except ValueError as exc:
        raise CniError(Code.INVALID_CONFIG, f"invalid range set {at}: {exc}") from None


def _range(keys: Keys) -> Range:
    subnet = keys.cidr("subnet")
    if subnet is None:
        raise keys.wrong("subnet", 'is missing: give a network as "10.1.0.0/24"')
    return make_range(
        make_subnet(subnet),
        start=keys.address("rangeStart"),
        end=keys.address("rangeEnd"),
        gateway=keys.address("gateway"),
    )


def _lists(keys: Keys, key: str) -> list[tuple[Keys, ...]]:
    """The list of lists of objects under *key*; null inside is an empty list, as in Go."""
    value = keys.raw(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise keys.wrong(key, f"is {shown(value)}, not a list of lists of ranges")
    return [_objects(keys, f"{key}[{at}]", each) for at, each in enumerate(value)]


def _objects(keys: Keys, key: str, value: Any) -> tuple[Keys, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise keys.wrong(key, f"is {shown(value)}, not a list of ranges: a range set has brackets of its own")
    return tuple(Keys(each, f"{keys.path(key)}[{at}]") for at, each in enumerate(value))


def _excluded(keys: Keys, at: int, text: str) -> Network:
    try:
        return ip_network(parse_cidr(text) if "/" in text else parse_address(text))
    except ValueError as exc:
        raise keys.wrong(f"exclude[{at}]", f"is wrong: {exc}") from None


def _check_families(sets: Sequence[RangeSet], version: str) -> None:
    families = [each.version for each in sets]
    if len(set(families)) < len(families) and not at_least(version, "0.3.0"):
        raise CniError(Code.INVALID_CONFIG, f"CNI version {version} does not support more than 1 address per family")


def _requested(conf: NetConf, cni_args: str) -> tuple[Address, ...]:
    texts = []
    pairs = parse_args(cni_args, ("IP",))
    if pairs.get("IP"):
        texts.append((Code.ENVIRONMENT, f"ARGS: error parsing value of pair {shown('IP=' + pairs['IP'])}", pairs["IP"]))
    for keys in (conf.args_cni, conf.runtime):
        for at, text in enumerate(keys.texts("ips")):
            texts.append((Code.INVALID_CONFIG, f"{keys.path(f'ips[{at}]')} is wrong", text))
    return tuple({_bare_address(*each): None for each in texts})


def _bare_address(code: int, where: str, text: str) -> Address:
    """The address "10.1.0.5" or "10.1.0.5/16": the prefix length is the subnet's, whatever is asked for."""
    try:
        return parse_cidr(text).ip if "/" in text else parse_address(text)
    except ValueError as exc:
        raise CniError(code, f"{where}: {exc}") from None


def parse_resolv_conf(text: str) -> Dns:
    """resolv.conf(5): several search and options lines add up, as in the reference; lines without a value are none."""
    lists: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    domain = ""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        if words[0] == "domain":
            domain = words[1]
        elif words[0] == "nameserver":
            lists["nameserver"].append(words[1])
        elif words[0] in lists:
            lists[words[0]].extend(words[1:])
    return Dns(tuple(lists["nameserver"]), domain, tuple(lists["search"]), tuple(lists["options"]))
