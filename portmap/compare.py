"""What CHECK compares: the mappings asked for and what was recorded of them, against what the host has. Pure."""

from __future__ import annotations

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.change.claims import Claim
    from pycni.firewall.rules import PortMapping
    from pycni.portmap.plan import Service


class CheckFacts(Value):
    """What the host has of one attachment's ports."""

    claims: tuple[Claim, ...]  # as recorded
    missing: tuple[str, ...]  # of its rules, in words
    lost: tuple[tuple[str, str], ...]  # (link, setting) that is off by now
    unserved: tuple[Claim, ...] = ()  # what was left to the proxy, where none runs


def differences(services: tuple[Service, ...], facts: CheckFacts) -> tuple[str, ...]:
    """Everything that is not as ADD left it, in words."""
    wrong = [
        f"host port {one.claim} is not published"
        for one in services
        if not one.is_extra
        if (one.claim not in facts.claims if one.mapping.low else not _has_some(one, facts.claims))
    ]
    wrong += [f"host port {one} is left to the userland proxy, and none runs" for one in facts.unserved]
    wrong += facts.missing
    wrong += [f"{setting} is off on {link}" for link, setting in facts.lost]
    return tuple(wrong)


def left_to_proxy(claims: Iterable[Claim], ports: Iterable[PortMapping]) -> tuple[Claim, ...]:
    """Those of *claims* that none of *ports*, which the kernel maps, is about."""
    mapped = {(6 if ":" in one.address else 4, one.proto, one.host_ip, one.low, one.high) for one in ports}
    return tuple(one for one in claims if (one.family, one.proto, one.host_ip, one.low, one.high) not in mapped)


def _has_some(one: Service, claims: tuple[Claim, ...]) -> bool:
    """Whether some port was chosen for *one*."""
    wanted = one.claim
    return any(have.replace(low=0, high=0) == wanted and have.low == have.high for have in claims)
