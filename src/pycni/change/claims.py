"""Host ports as something that one attachment has and nobody else: when two claims exclude each other. Pure.

The rules are those of bind(2): the wildcard address takes the port on every address of its family, families are apart
(sockets are bound IPV6_V6ONLY), and so are protocols.
"""

from __future__ import annotations

from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Claim(Value):
    """Ports `low`..`high` of the host."""

    family: int  # 4 or 6
    proto: str  # "tcp", "udp", "sctp"
    host_ip: str  # one address of that family; "": all
    low: int
    high: int

    def excludes(self, other: Claim) -> bool:
        """Whether the two cannot stand side by side."""
        return (
            (self.family, self.proto) == (other.family, other.proto)
            and self.low <= other.high
            and other.low <= self.high
            and (not self.host_ip or not other.host_ip or self.host_ip == other.host_ip)
        )

    def __str__(self) -> str:
        where = self.host_ip or ("0.0.0.0" if self.family == 4 else "::")
        ports = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
        return f"{f'[{where}]' if self.family == 6 else where}:{ports}/{self.proto}"


def first_clash(claims: Iterable[Claim]) -> tuple[Claim, Claim] | None:
    """Two of *claims* that exclude each other, None where none do. Takes n log n: a container may have many ports."""
    reaching: list[Claim] = []  # of those before, in order of their first port: what reaches as far as this one
    for claim in sorted(claims, key=lambda one: (one.family, one.proto, one.low)):
        of = claim.family, claim.proto
        reaching = [one for one in reaching if (one.family, one.proto) == of and one.high >= claim.low]
        clash = next((one for one in reaching if one.excludes(claim)), None)
        if clash is not None:
            return clash, claim
        reaching.append(claim)
    return None
