"""The ends of a trace through a lab: names and addresses become hosts, containers and addresses."""

from __future__ import annotations

import pytest

from pycni.lab.errors import LabError
from pycni.lab.picture import Picture, PictureContainer, PictureHost, Plug, Station, Wire
from pycni.lab.tracing import End, ends_of

SAME = "10.9.0.2"


def host(at: int) -> PictureHost:
    """With a container on blue and red, of which red has the same address on every host."""
    plugs = Plug("red", "eth0", (SAME,)), Plug("blue", "eth1", (f"10.1.0.{at}", f"fd00::{at}"))
    wires = (Wire("lan", "eth0", (f"192.0.2.{at}", f"2001:db8::{at}")),)
    dotted = PictureContainer("a.1", (Plug("blue", "eth0", (f"10.1.1.{at}",)),))
    return PictureHost(f"h{at}", wires, (PictureContainer("a", plugs), dotted, PictureContainer("bare")))


def only_ipv6() -> PictureHost:
    return PictureHost("six", (Wire("lan", "eth0", ("2001:db8::6",)),))


PICTURE = Picture(
    "lab",
    stations=(Station("router", "router", (Wire("lan", "eth0", ("192.0.2.254",)),)),),
    hosts=(host(1), host(2), only_ipv6()),
)


@pytest.mark.parametrize(
    ("source", "target", "family", "ends"),
    [
        ("h1/a", "10.1.0.2", 0, (End("h1", "a", "10.1.0.1"), End("h2", "a", "10.1.0.2"))),
        ("h1/a", "fd00::2", 0, (End("h1", "a", "fd00::1"), End("h2", "a", "fd00::2"))),
        ("h1/a", "FD00:0::2", 0, (End("h1", "a", "fd00::1"), End("h2", "a", "fd00::2"))),
        ("h1/a", "h2/a.1", 0, (End("h1", "a", "10.1.0.1"), End("h2", "a.1", "10.1.1.2"))),
        ("h1/a", "six", 0, (End("h1", "a", "fd00::1"), End("six", "", "2001:db8::6"))),
        ("six", "h1/a", 0, (End("six", "", "2001:db8::6"), End("h1", "a", "fd00::1"))),
        ("h1/a", "h2/a", 0, (End("h1", "a", SAME), End("h2", "a", SAME))),
        ("h1/a", "h2/a", 6, (End("h1", "a", "fd00::1"), End("h2", "a", "fd00::2"))),
        ("h1/a", "h2", 0, (End("h1", "a", SAME), End("h2", "", "192.0.2.2"))),
        ("h1", "h2", 6, (End("h1", "", "2001:db8::1"), End("h2", "", "2001:db8::2"))),
        ("203.0.113.9", "h2/a", 0, (End("", "", "203.0.113.9"), End("h2", "a", SAME))),
        ("2001:db8::9", "h2/a", 0, (End("", "", "2001:db8::9"), End("h2", "a", "fd00::2"))),
        ("router", "h1", 0, (End("", "", "192.0.2.254"), End("h1", "", "192.0.2.1"))),
    ],
)
def test_ends(source: str, target: str, family: int, ends: tuple[End, End]) -> None:
    """On a network of both, of the family of an address that is given; the world has no host."""
    assert ends_of(PICTURE, source, target, family) == ends


def test_an_address_of_several_is_of_who_is_on_a_network_of_the_other() -> None:
    """Else of the first."""
    green = PictureContainer("g", (Plug("green", "eth0", (SAME,)), Plug("black", "eth1", ("10.7.0.7",))))
    picture = PICTURE.replace(hosts=(*PICTURE.hosts, PictureHost("h3", (), (green,))))
    assert ends_of(picture, "h3/g", SAME)[1].host == "h3"
    assert ends_of(picture, "h2/a", SAME)[1].host == "h1"


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("h1/bare", "h2/a", "h1/bare has no address"),
        ("h1/b", "h2/a", "no container h1/b"),
        ("h3", "h1/a", "no host 'h3'"),
        ("router", "203.0.113.9", "neither router nor 203.0.113.9"),
    ],
)
def test_what_is_not_there(source: str, target: str, said: str) -> None:
    """A LabError that names it."""
    with pytest.raises(LabError, match=said):
        ends_of(PICTURE, source, target)
