"""The boxes of a lab's picture: a host with its containers, edges and rails; a router; an etcd member.

Inside a host the containers stand on the left, a coloured rail for each network on the right, and between them the
edges with their addresses and published ports. A network of the host's own ends in the host, in a box with its name;
a rail of one that spans hosts leaves it at the bottom.
"""

from __future__ import annotations

from collections.abc import Mapping

from pycni.cni.value import Value
from pycni.lab.drawing import ALARM, INK, PALE, PAPER, Box, Line, Shape, Words, clipped, widest, width_of
from pycni.lab.picture import Picture, PictureContainer, PictureHost, Plug, Station, Wire

PAD, LINE = 10.0, 14.0
SMALL, LARGE = 10.0, 13.0
HEADER, STATION_HEIGHT, STATION_WIDTH = 40.0, 38.0, 90.0
RAIL_GAP, PILL = 14.0, 20.0
NAME_LENGTH, EDGE_LENGTH = 20, 44  # characters; what is longer ends in an ellipsis
HOST_FILL, STATION_FILL = "#f3f5f7", "#fff8e1"


class Measures(Value):
    """What all hosts of one picture have alike, so that they line up."""

    container: float  # widths
    edge: float
    host: float
    wire_height: float  # of the words beside the wires
    own: tuple[str, ...]  # networks whose rails end in the host; they come first from the left
    spanning: tuple[str, ...]

    def rail(self, network: str) -> float:
        """Where the rail of *network* is, from the host's left edge."""
        at = (*self.own, *self.spanning).index(network)
        return 2 * PAD + self.container + self.edge + RAIL_GAP * at


def measure(picture: Picture) -> Measures:
    """The widths that the longest words of the picture need."""
    containers = [each for host in picture.hosts for each in host.containers]
    names = [clipped(each.name, NAME_LENGTH) for each in containers] + [each.trouble for each in containers]
    edges = [line for each in containers for plug in each.plugs for line in _edge_words(plug, _is_named(each))]
    used = {plug.network for each in containers for plug in each.plugs}
    own = tuple(each.name for each in picture.networks if each.name in used and not each.spans)
    spanning = tuple(each.name for each in picture.networks if each.name in used and each.spans)
    container, edge = widest(names) + 2 * PAD, widest(edges, SMALL) + 2 * PAD
    inside = 3 * PAD + container + edge + RAIL_GAP * (len(own) + len(spanning))
    headers = [width_of(clipped(host.name, NAME_LENGTH), LARGE) for host in picture.hosts]
    headers += [width_of(_host_words(host), SMALL) for host in picture.hosts]
    wires = [wires_width(host.wires) for host in picture.hosts]
    pills = [2 * PAD + width_of(clipped(name, NAME_LENGTH), SMALL) for name in own]
    host = max([inside, STATION_WIDTH, *wires, *(width + 2 * PAD for width in (*headers, *pills))])
    groups = [each.wires for each in picture.hosts] + [each.wires for each in picture.stations]
    lines = [len(wire_words(wire)) for wires in groups for wire in wires]
    return Measures(container, edge, host, LINE * max(lines, default=1) + PAD, own, spanning)


def _is_named(container: PictureContainer) -> bool:
    """Whether its edges must say which interface they are."""
    return len(container.plugs) > 1


def _edge_words(plug: Plug, named: bool) -> tuple[str, ...]:
    """The lines at an edge: the addresses, then the ports, two in a line."""
    addresses = list(plug.addresses) or ["no address"]
    if named:
        addresses[0] = f"{plug.ifname} {addresses[0]}"
    ports = [" ".join(plug.ports[at : at + 2]) for at in range(0, len(plug.ports), 2)]
    return tuple(clipped(line, EDGE_LENGTH) for line in (*addresses, *ports))


def _plug_height(plug: Plug) -> float:
    return LINE * len(_edge_words(plug, named=False)) + 8


def _container_height(container: PictureContainer) -> float:
    own = LINE * (2 if container.trouble else 1) + 8
    return max(own, sum(map(_plug_height, container.plugs)))


def _host_words(host: PictureHost) -> str:
    return host.trouble or host.words


def host_height(host: PictureHost, measures: Measures) -> float:
    containers = sum(_container_height(each) + 6 for each in host.containers)
    return HEADER + containers + PILL * len(measures.own) + PAD


# -- wires -------------------------------------------------------------------------------------------------------------


def wire_words(wire: Wire) -> tuple[str, ...]:
    """The lines beside a wire."""
    return (wire.ifname, *wire.addresses, *wire.notes, *(("cut",) if wire.cut else ()))


def wires_width(wires: tuple[Wire, ...]) -> float:
    return sum(_wire_width(wire) for wire in wires) + PAD


def _wire_width(wire: Wire) -> float:
    return 5 + widest(wire_words(wire), SMALL) + PAD


def draw_wire_words(wires: tuple[Wire, ...], x: float, top: float) -> tuple[list[Shape], list[tuple[float, Wire]]]:
    """The words of all wires of a box whose left edge is at *x*, and where each wire runs."""
    shapes: list[Shape] = []
    places = []
    at = x + PAD
    for wire in wires:
        places.append((at, wire))
        for number, line in enumerate(wire_words(wire)):
            colour = INK if not number else PALE if number <= len(wire.addresses) else ALARM
            shapes.append(Words(at + 5, top + LINE * (number + 1), line, SMALL, colour))
        at += _wire_width(wire)
    return shapes, places


# -- boxes -------------------------------------------------------------------------------------------------------------


def station_width(station: Station) -> float:
    words = [width_of(clipped(station.name, NAME_LENGTH)), width_of(station.trouble or station.kind, SMALL)]
    return max(STATION_WIDTH, wires_width(station.wires), *(width + 2 * PAD for width in words))


def draw_station(station: Station, x: float, top: float) -> list[Shape]:
    """The box of a router or etcd member."""
    edge, colour = (ALARM, ALARM) if station.trouble else (INK, PALE)
    box = Box(x, top, station_width(station), STATION_HEIGHT, STATION_FILL, edge, bool(station.trouble))
    name = Words(x + PAD, top + 16, clipped(station.name, NAME_LENGTH), bold=True, tip=station.name)
    return [box, name, Words(x + PAD, top + 30, station.trouble or station.kind, SMALL, colour)]


class HostBox:
    """A host drawn with its upper left corner at *x*, *top*; all hosts of a row are equally high."""

    def __init__(self, x: float, top: float, height: float, *, measures: Measures, colours: Mapping[str, str]) -> None:
        self.x, self.top, self.height = x, top, height
        self.measures, self.colours = measures, colours
        self.shapes: list[Shape] = []
        self._reached: dict[str, float] = {}  # network -> where its first edge meets its rail

    def draw(self, host: PictureHost) -> list[Shape]:
        """The box with all that is in it; rails of networks that span hosts reach its lower edge."""
        edge, colour = (ALARM, ALARM) if host.trouble else (INK, PALE)
        x, top = self.x + PAD, self.top
        self.shapes += [
            Box(self.x, top, self.measures.host, self.height, HOST_FILL, edge, bool(host.trouble), 6),
            Words(x, top + 18, clipped(host.name, NAME_LENGTH), LARGE, bold=True, tip=host.name),
            Words(x, top + 32, _host_words(host), SMALL, colour),
        ]
        at = top + HEADER
        for container in host.containers:
            self._container(container, at)
            at += _container_height(container) + 6
        bottom = top + self.height
        ends = bottom - PAD - PILL * len(self.measures.own) + 2
        for number, network in enumerate(self.measures.own):
            if network in self._reached:
                self._end(network, ends + PILL * number)
        for network in self.measures.spanning:
            if network in self._reached:
                self._rail(network, bottom)
        return self.shapes

    def _rail(self, network: str, bottom: float) -> None:
        x = self.x + self.measures.rail(network)
        self.shapes.append(Line(((x, self._reached[network]), (x, bottom)), self.colours[network], 2.5))

    def _end(self, network: str, y: float) -> None:
        """The rail of a network of the host's own, and the box with its name in which it ends."""
        self._rail(network, y)
        width = self.measures.rail(network) - PAD + 4
        self.shapes.append(Box(self.x + PAD, y, width, PILL - 4, self.colours[network], "", radius=3))
        name = clipped(network, NAME_LENGTH)
        self.shapes.append(Words(self.x + PAD + 5, y + 12, name, SMALL, PAPER, bold=True))

    def _container(self, container: PictureContainer, top: float) -> None:
        edge, x = (ALARM if container.trouble else PALE), self.x + PAD
        height, width = _container_height(container), self.measures.container
        name = clipped(container.name, NAME_LENGTH)
        self.shapes += [
            Box(x, top, width, height, stroke=edge, dashed=bool(container.trouble), tip=container.tip),
            Words(x + PAD, top + 16, name, bold=True, tip=container.name),
        ]
        if container.trouble:
            self.shapes.append(Words(x + PAD, top + 16 + LINE, container.trouble, SMALL, ALARM))
        for plug in container.plugs:
            self._edge(plug, x + width, top, named=_is_named(container))
            top += _plug_height(plug)

    def _edge(self, plug: Plug, x: float, top: float, *, named: bool) -> None:
        y, rail = top + 17, self.x + self.measures.rail(plug.network)
        self._reached.setdefault(plug.network, y)
        self.shapes.append(Line(((x, y), (rail, y)), self.colours[plug.network], dot=True))
        for number, line in enumerate(_edge_words(plug, named)):
            hanging = 2 if number else 0  # the first line stands on the edge, the others hang from it
            self.shapes.append(Words(x + 6, top + 13 + hanging + LINE * number, line, SMALL))
