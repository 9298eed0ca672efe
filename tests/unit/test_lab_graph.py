"""The lab's picture: nothing lies on a word, whatever is in the lab; the SVG and Mermaid texts of it."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycni.lab.drawing import Box, Drawing, Line, Words, render_svg, width_of
from pycni.lab.graph import colours_of, draw
from pycni.lab.mermaid import render_mermaid
from pycni.lab.picture import (
    Picture,
    PictureContainer,
    PictureHost,
    PictureNetwork,
    Plug,
    Segment,
    Station,
    Wire,
)

NETWORKS = (
    PictureNetwork("blue", ("overlay l2", "10.1.0.0/16", "fd00:1::/64", "vni 4242"), spans=True),
    PictureNetwork("local", ("bridge", "10.88.0.0/16")),
    PictureNetwork("green", ("overlay routed", "10.2.0.0/16"), spans=True),
    PictureNetwork("other", ("bridge", "10.89.0.0/16")),
)


def lab(hosts: int, containers: int, *, segments: int = 1, members: int = 1) -> Picture:
    """Dual-stack, two networks on every third container, ports on every fourth, one dead container, one cut host."""
    return Picture(
        "demo",
        tuple(Segment(f"rack{at}", (f"10.10.{at}.0/24", f"fd00:10:{at}::/64", "mtu 1500")) for at in range(segments)),
        tuple(Station(f"etcd{at}", "etcd", (Wire("rack0", "eth0", (f"10.10.0.{at}",)),)) for at in range(members)),
        tuple(_host(number, containers, segments) for number in range(hosts)),
        NETWORKS,
    )


def _host(number: int, containers: int, segments: int) -> PictureHost:
    wires = tuple(
        Wire(f"rack{at}", f"eth{at}", (f"10.10.{at}.{number}", f"fd00:10:{at}::{number}"), cut=number == 2)
        for at in range(segments)
    )
    return PictureHost(f"h{number}", wires, tuple(_container(number, at) for at in range(containers)), "agent runs")


def _container(host: int, number: int) -> PictureContainer:
    ports = tuple(f"80{at}→8{at}/tcp" for at in range(number)) if number % 4 == 3 else ()
    plugs = [Plug(("blue", "green")[number % 2], "eth0", (f"10.1.{host}.{number}", f"fd00:1::{host}:{number}"), ports)]
    if number % 3 == 0:
        plugs.append(Plug(("local", "other")[number % 2], "eth1", (f"10.88.{host}.{number}",)))
    return PictureContainer(f"c{number}", tuple(plugs), "dead" if number == 1 else "")


def assert_readable(drawing: Drawing) -> None:
    """No two words overlap, no wire crosses a word, boxes are apart or one in the other, all is inside the picture."""
    words = [(shape.text, shape.area) for shape in drawing.shapes if isinstance(shape, Words) and shape.text]
    boxes = [shape for shape in drawing.shapes if isinstance(shape, Box)]
    whole = Box(0, 0, drawing.width, drawing.height)
    assert_apart(words)
    for box, outer in itertools.combinations(boxes, 2):
        assert not box.meets(outer) or box.holds(outer) or outer.holds(box), f"{box} and {outer} overlap"
    pieces = _pieces(drawing)
    for text, area in words:
        assert whole.holds(area), f"{text!r} is not in the picture"
        for box in boxes:
            assert box.holds(area) or not box.meets(area), f"{text!r} is half in {box}"
        for piece in pieces:
            assert not piece.meets(area), f"a line crosses {text!r}"


def assert_apart(words: list[tuple[str, Box]]) -> None:
    """No two of them overlap; only those whose heights meet are compared, a hundred containers have too many pairs."""
    ordered = sorted(words, key=lambda each: each[1].y)
    for at, (text, area) in enumerate(ordered):
        for other, place in ordered[at + 1 :]:
            if place.y >= area.bottom:
                break
            assert not area.meets(place), f"{text!r} and {other!r} overlap"


def _pieces(drawing: Drawing) -> list[Box]:
    """The straight pieces of all lines as boxes of their thickness."""
    pieces = []
    for line in drawing.shapes:
        if isinstance(line, Line):
            for (x1, y1), (x2, y2) in itertools.pairwise(line.points):
                half = line.width / 2
                left, top = min(x1, x2) - half, min(y1, y2) - half
                pieces.append(Box(left, top, abs(x2 - x1) + line.width, abs(y2 - y1) + line.width))
    return pieces


@pytest.mark.parametrize(
    ("hosts", "containers", "segments", "members"),
    [(0, 0, 1, 0), (1, 0, 0, 0), (1, 1, 1, 0), (2, 2, 1, 1), (3, 3, 2, 3), (4, 10, 1, 1), (7, 5, 3, 3), (10, 10, 2, 3)],
)
def test_nothing_lies_on_a_word(hosts: int, containers: int, segments: int, members: int) -> None:
    """From an empty lab to ten hosts with ten containers each."""
    picture = lab(hosts, containers, segments=segments, members=members)
    drawing = draw(picture)
    assert_readable(drawing)
    shown = {shape.text for shape in drawing.shapes if isinstance(shape, Words)}
    for host in picture.hosts:
        assert host.name in shown
        for container in host.containers:
            assert container.name in shown
            assert {address.split()[-1] for plug in container.plugs for address in plug.addresses} <= {
                text.split()[-1] for text in shown if text
            }


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=40)
addresses = st.lists(st.sampled_from(["10.1.2.3", "192.168.100.200", "fd00:1111:2222:3333:4444:5555:6666:7777"]))
notes = st.lists(st.sampled_from(["loss 20 %", "mtu 1400", "rate 10mbit"]), max_size=3).map(tuple)


@st.composite
def pictures(draw_from: st.DrawFn) -> Picture:
    segments = draw_from(st.lists(names, unique=True, max_size=3))
    networks = draw_from(st.lists(names, unique=True, max_size=10))
    wires = (
        st.lists(
            st.builds(Wire, st.sampled_from(segments), names, addresses.map(tuple), notes, st.booleans()), max_size=3
        ).map(tuple)
        if segments
        else st.just(())
    )
    ports = st.lists(st.just("[fd00::1]:8000-8010→9000-9010/tcp"), max_size=5).map(tuple)
    plugs = (
        st.lists(st.builds(Plug, st.sampled_from(networks), names, addresses.map(tuple), ports), max_size=3).map(tuple)
        if networks
        else st.just(())
    )
    trouble = st.sampled_from(["", "dead"])
    containers = st.lists(st.builds(PictureContainer, names, plugs, trouble), max_size=4).map(tuple)
    stations = st.lists(st.builds(Station, names, st.sampled_from(["etcd", "router"]), wires, trouble), max_size=5)
    hosts = st.lists(st.builds(PictureHost, names, wires, containers, st.just("agent runs"), trouble), max_size=12)
    return Picture(
        draw_from(names),
        tuple(Segment(each, draw_from(addresses.map(tuple))) for each in segments),
        tuple(draw_from(stations)),
        tuple(draw_from(hosts)),
        tuple(PictureNetwork(each, ("bridge",), draw_from(st.booleans())) for each in networks),
    )


@given(pictures())
@settings(max_examples=20, deadline=None)
def test_nothing_lies_on_a_word_in_any_lab(picture: Picture) -> None:
    """Long names, many addresses and ports, hosts without wires, containers without networks."""
    assert_readable(draw(picture))
    ElementTree.fromstring(render_svg(draw(picture)))


def test_svg_is_whole_and_needs_nothing_else() -> None:
    """Well-formed, of its own size, with every word escaped, and no reference to anything outside of it."""
    picture = Picture('a<b & "c"', hosts=(PictureHost("h<1>", words="x & y"),))
    text = render_svg(draw(picture))
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    assert "h<1>" in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert not re.search(r"href|url\(|<script|<style|@import", text)
    assert text.count("http") == 1  # the name of the format


def test_colours_tell_networks_apart_and_stay() -> None:
    """Eight networks have eight colours; one more at the end of the file changes none of them."""
    networks = [PictureNetwork(f"net{at}") for at in range(8)]
    before = colours_of(networks)
    assert len(set(before.values())) == 8
    assert {**colours_of([*networks, PictureNetwork("more")]), **before} == colours_of(
        [*networks, PictureNetwork("more")]
    )


def test_what_is_wrong_is_shown() -> None:
    """A cut wire is dashed, a lossy one has its note, a dead container says so."""
    wires = (Wire("net", "eth0", ("192.0.2.1",), ("loss 20 %",)), Wire("net", "eth1", cut=True))
    picture = Picture(
        "x", (Segment("net"),), hosts=(PictureHost("h1", wires, (PictureContainer("c1", trouble="dead"),)),)
    )
    drawing = draw(picture)
    shown = [shape.text for shape in drawing.shapes if isinstance(shape, Words)]
    assert {"loss 20 %", "cut", "dead"} <= set(shown)
    assert [shape.dashed for shape in drawing.shapes if isinstance(shape, Line) and shape.dot] == [False, True]


def test_width_is_that_of_the_widest_face() -> None:
    """A character takes 0.602 of the size in DejaVu Sans Mono; less would let words run into each other."""
    assert width_of("x" * 100, 10) >= 602


def test_mermaid_has_all_of_it() -> None:
    """Hosts as subgraphs, addresses and ports on the edges, networks coloured, no name that Mermaid reads as a word."""
    text = render_mermaid(lab(2, 4))
    assert text.startswith("flowchart TB\n")
    assert re.search(r'subgraph h\d+\["h1<br>agent runs"\]', text)
    assert '|"eth0<br>10.1.1.0<br>fd00:1::1:0"|' in text
    assert "8→" not in text.split("|")[0]
    assert "800→80/tcp<br>801→81/tcp" in text
    assert text.count("fill:#0072b2") == 1  # spans the hosts: one node
    assert text.count("fill:#d55e00") == 2  # one for each host
    end = render_mermaid(Picture("x", hosts=(PictureHost("end", containers=(PictureContainer('"#<'),)),)))
    assert 'h1["end"]' in end
    assert '["#quot;#35;#lt;"]' in end
