"""What CHECK compares: the mappings asked for and what was recorded of them, against what the host has. Pure."""

from __future__ import annotations

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.change.claims import Claim
    from pycni.portmap.plan import Service


class CheckFacts(Value):
    """What the host has of one attachment's ports."""

    claims: tuple[Claim, ...]  # as recorded
    missing: tuple[str, ...]  # of its rules, in words
    lost: tuple[tuple[str, str], ...]  # (link, setting) that is off by now


def differences(services: tuple[Service, ...], facts: CheckFacts) -> tuple[str, ...]:
    """Everything that is not as ADD left it, in words."""
    wrong = [
        f"host port {one.claim} is not published"
        for one in services
        if (one.claim not in facts.claims if one.mapping.low else not _has_some(one, facts.claims))
    ]
    wrong += facts.missing
    wrong += [f"{setting} is off on {link}" for link, setting in facts.lost]
    return tuple(wrong)


def _has_some(one: Service, claims: tuple[Claim, ...]) -> bool:
    """Whether some port was chosen for *one*."""
    wanted = one.claim
    return any(have.replace(low=0, high=0) == wanted and have.low == have.high for have in claims)
