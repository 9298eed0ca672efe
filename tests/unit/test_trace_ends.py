"""What SRC and DST of `pycni trace` mean, and which addresses the packet then has."""

from __future__ import annotations

import pytest

from pycni.agent.view import Seen
from pycni.cli.failure import Failure
from pycni.cli.trace.ends import addresses_of, find_end
from pycni.cli.trace.facts import HERE, HOST, OUTSIDE, End
from pycni.cni.names import Attachment
from pycni.store import Record


def seen(container: str, *addresses: str) -> Seen:
    return Seen(Record(Attachment("net", container, "eth0"), "bridge", addresses=addresses), "ready", ())


ATTACHED = (seen("c1", "10.1.0.5/24", "fd00:1::5/64"), seen("c2", "10.1.0.9/24", "fd00:1::9/64"))
OWN = ("192.0.2.1", "2001:db8::1", "127.0.0.1", "::1")


def end(text: str) -> End:
    ((found, _),) = find_end(text, ATTACHED, (), lambda address: str(address) in OWN)
    return found


@pytest.mark.parametrize(
    ("source", "target", "packet"),
    [
        ("c1", "c2", ("10.1.0.5", "10.1.0.9")),
        ("c1", "10.1.0.9", ("10.1.0.5", "10.1.0.9")),
        ("c1", "fd00:1::9", ("fd00:1::5", "fd00:1::9")),
        ("c1", "fd00:1:0::0009", ("fd00:1::5", "fd00:1::9")),
        ("fd00:1::5", "c2", ("fd00:1::5", "fd00:1::9")),
        ("fd00:1::5", "fd00:1::9", ("fd00:1::5", "fd00:1::9")),
        ("c1", "2001:db8::7", ("fd00:1::5", "2001:db8::7")),
    ],
)
def test_an_address_that_was_given_is_the_packets(source: str, target: str, packet: tuple[str, str]) -> None:
    """Names leave the choice, IPv4 before IPv6; an address is taken as it was given, with the other end's of its
    family."""
    assert tuple(map(str, addresses_of(end(source), end(target)))) == packet


def test_addresses_of_two_families_are_refused() -> None:
    """One packet has one family, also where both containers have both."""
    with pytest.raises(Failure, match="no address of the same family"):
        addresses_of(end("10.1.0.5"), end("fd00:1::9"))


@pytest.mark.parametrize(
    ("text", "place"),
    [("10.1.0.5", HERE), ("c2", HERE), ("192.0.2.1", HOST), ("2001:db8::1", HOST), ("192.0.2.9", OUTSIDE)],
)
def test_whose_an_address_is(text: str, place: str) -> None:
    """A container's of this host, the host's own, or of nobody who is known."""
    assert end(text).place == place
