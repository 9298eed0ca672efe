"""`static`: the addresses that the config or the caller names, handed through. Nothing is stored, nothing to release.

Sentences and precedence are the reference's: CNI_ARGS adds to `ipam.addresses`, `args.cni.ips` replaces both, and
`runtimeConfig.ips` replaces all of these.
"""

from __future__ import annotations

from pycni.cni.addresses import parse_address, parse_cidr
from pycni.cni.env import parse_args
from pycni.cni.errors import CniError, Code, shown
from pycni.cni.result import IPConfig, Result, parse_dns, parse_route
from pycni.cni.versions import at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.cni.conf import Keys, NetConf
    from pycni.cni.env import Call
    from pycni.store import Store


def add(call: Call, conf: NetConf, store: Store | None) -> Result:
    """The addresses, routes and dns of the config; CniError 7 (config) or 4 (CNI_ARGS)."""
    return Result(
        ips=read_addresses(conf, call.args),
        routes=tuple(parse_route(each) for each in conf.ipam.objects("routes")),
        dns=parse_dns(conf.ipam.object("dns")),
    )


def delete(call: Call, conf: NetConf, store: Store | None) -> None:
    """Success, whatever the config says."""


def check(call: Call, conf: NetConf, store: Store | None) -> None:
    """CniError (BROKEN) unless prevResult has every address, with the same gateway."""
    wanted = read_addresses(conf, call.args)
    if conf.prev_result is None:
        raise CniError(Code.INVALID_CONFIG, "Required prevResult missing")
    for one in wanted:
        same = [each for each in conf.prev_result.ips if each.address == one.address]
        if not same:
            raise CniError(Code.BROKEN, f"static: Failed to find the address {one.address} in prevResult")
        if one.gateway is not None and all(each.gateway != one.gateway for each in same):
            raise CniError(
                Code.BROKEN, f"static: Failed to match addr {one.address} on interface: gateway {one.gateway} expected"
            )


def gc(call: Call, conf: NetConf, store: Store | None) -> None:
    """Success: there is nothing to collect."""


def status(call: Call, conf: NetConf, store: Store | None) -> None:
    """CniError 7 when an ADD would refuse the config."""
    read_addresses(conf, "")


def read_addresses(conf: NetConf, cni_args: str) -> tuple[IPConfig, ...]:
    """The addresses to give, each with its gateway."""
    if not conf.keys.has("ipam"):
        raise CniError(Code.INVALID_CONFIG, "IPAM config missing 'ipam' key")
    found = [_configured(each) for each in conf.ipam.objects("addresses")]
    pairs = parse_args(cni_args, ("IP", "GATEWAY"))
    if pairs.get("IP"):
        problem = "the 'ip' field is expected to be in CIDR notation"
        found += _all_cidr(_listed(pairs["IP"]), Code.ENVIRONMENT, problem)
    for text in _listed(pairs["GATEWAY"]) if pairs.get("GATEWAY") else ():
        found = _with_gateway(found, text)
    for keys in (conf.args_cni, conf.runtime):
        if keys.texts("ips"):
            problem = "an entry in the 'ips' field is NOT in CIDR notation"
            found = _all_cidr(keys.texts("ips"), Code.INVALID_CONFIG, problem)
    families = [each.address.version for each in found]
    if len(set(families)) < len(families) and not at_least(conf.cni_version, "0.3.0"):
        raise CniError(
            Code.INVALID_CONFIG, f"CNI version {conf.cni_version} does not support more than 1 address per family"
        )
    return tuple(found)


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",")]


def _configured(keys: Keys) -> IPConfig:
    text = keys.text("address")
    (ip,) = _all_cidr([text], Code.INVALID_CONFIG, "the 'address' field is expected to be in CIDR notation")
    return ip.replace(gateway=keys.address("gateway"))


def _all_cidr(texts: Iterable[str], code: int, problem: str) -> list[IPConfig]:
    found = []
    for text in texts:
        try:
            found.append(IPConfig(parse_cidr(text)))
        except ValueError:
            raise CniError(code, f"{problem}, got: '{shown(text)[1:-1]}'") from None
    return found


def _with_gateway(ips: list[IPConfig], text: str) -> list[IPConfig]:
    """*ips* with the gateway *text* at each whose subnet holds it."""
    try:
        gateway = parse_address(text)
    except ValueError:
        raise CniError(Code.ENVIRONMENT, f"invalid gateway address: {shown(text)[1:-1]}") from None
    return [each.replace(gateway=gateway) if gateway in each.address.network else each for each in ips]
