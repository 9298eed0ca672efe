"""The picture of a lab, laid out to be read: where each box, wire and word goes, so that nothing lies on a word.

Segments of the underlay are bars above the hosts, networks that span hosts are coloured lanes below them. The names of
bars stand in a column on the left, those of lanes in one on the right, where no wire passes. More than a few hosts
take several rows; each row has bars and lanes of its own, which are joined at the sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pycni.lab.drawing import (
    ALARM,
    INK,
    NETWORK_COLOURS,
    PALE,
    Box,
    Drawing,
    Line,
    Shape,
    Words,
    clipped,
    widest,
    width_of,
)
from pycni.lab.graph_boxes import (
    LARGE,
    LINE,
    NAME_LENGTH,
    PAD,
    SMALL,
    STATION_HEIGHT,
    HostBox,
    draw_station,
    draw_wire_words,
    host_height,
    measure,
    station_width,
)
from pycni.lab.picture import Picture, PictureHost, PictureNetwork, Wire

MARGIN, GAP = 20.0, 28.0
SPINE_GAP, LANE = 8.0, 22.0
ONE_ROW, PER_ROW = 4, 5  # up to four hosts stand side by side, more in rows of at most five


def draw(picture: Picture) -> Drawing:
    """The picture with every place decided."""
    return _Sheet(picture).drawing()


def colours_of(networks: Sequence[PictureNetwork]) -> dict[str, str]:
    """A colour for each network, in the order of the file: one more at its end changes none."""
    return {each.name: NETWORK_COLOURS[at % len(NETWORK_COLOURS)] for at, each in enumerate(networks)}


def _columns(hosts: int) -> int:
    """How many hosts a row takes: all, or such that the rows are equally full."""
    return max(hosts, 1) if hosts <= ONE_ROW else math.ceil(hosts / math.ceil(hosts / PER_ROW))


class _Sheet:
    """The places, worked out from the top down."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.measures = measure(picture)
        self.colours = colours_of(picture.networks)
        self.columns = _columns(len(picture.hosts))
        labels = [clipped(each.name, NAME_LENGTH) for each in picture.segments]
        labels += [line for each in picture.segments for line in each.words]
        self.left = MARGIN + widest(labels, SMALL) + PAD + SPINE_GAP * len(picture.segments) + PAD
        stations = sum(station_width(each) + GAP for each in picture.stations)
        self.right = self.left + max(self.columns * (self.measures.host + GAP), stations) - GAP
        self.shapes: list[Shape] = []
        self.wires: list[tuple[float, float, Wire]] = []  # where each of the next row leaves its box
        self.bars: list[dict[str, float]] = []  # for each row: the height of each segment's bar
        self.lanes: list[dict[str, float]] = []  # and of each network's lane

    def drawing(self) -> Drawing:
        top = self._stations(self._title(MARGIN))
        hosts = self.picture.hosts
        for at in range(0, max(len(hosts), 1), self.columns):
            top = self._row(hosts[at : at + self.columns], top)
        self._join_rows()
        rights = [each.right if isinstance(each, Box) else each.area.right for each in self._solid()]
        width = max([self.right, *rights]) + MARGIN
        return Drawing(width, top + MARGIN, f"lab {self.picture.name}", tuple(self.shapes))

    def _solid(self) -> list[Box | Words]:
        return [each for each in self.shapes if isinstance(each, Box | Words)]

    def _title(self, top: float) -> float:
        """The lab's name, a line for each network with its colour, and the notes."""
        self.shapes.append(Words(MARGIN, top + LARGE, f"lab {self.picture.name}", LARGE + 2, bold=True))
        top += LARGE + 12
        for network in self.picture.networks:
            colour, name = self.colours[network.name], clipped(network.name, NAME_LENGTH)
            self.shapes.append(Box(MARGIN, top, 10, 10, colour, "", radius=2))
            self.shapes.append(Words(MARGIN + 16, top + 9, name, colour=colour, bold=True))
            at = MARGIN + 16 + width_of(f"{name}  ")
            self.shapes.append(Words(at, top + 9, "  ".join(network.words), SMALL, PALE))
            top += LINE + 2
        for note in self.picture.notes:
            self.shapes.append(Words(MARGIN, top + 9, note, colour=ALARM))
            top += LINE + 2
        return top + PAD

    def _stations(self, top: float) -> float:
        """Routers and etcd members; their wires lead down to the bars of the first row."""
        x = self.left
        for station in self.picture.stations:
            self.shapes += draw_station(station, x, top)
            words, places = draw_wire_words(station.wires, x, top + STATION_HEIGHT)
            self.shapes += words
            self.wires += [(at, top + STATION_HEIGHT, wire) for at, wire in places]
            x += station_width(station) + GAP
        return top + (STATION_HEIGHT + self.measures.wire_height if self.picture.stations else 0)

    def _row(self, hosts: Sequence[PictureHost], top: float) -> float:
        words_top = self._bars(top + PAD)
        box_top = words_top + self.measures.wire_height
        height = max((host_height(host, self.measures) for host in hosts), default=0.0)
        for column, host in enumerate(hosts):
            x = self.left + column * (self.measures.host + GAP)
            words, places = draw_wire_words(host.wires, x, words_top)
            self.wires += [(at, box_top, wire) for at, wire in places]
            box = HostBox(x, box_top, height, measures=self.measures, colours=self.colours)
            self.shapes += [*words, *box.draw(host)]
        for at, y, wire in self.wires:
            end = self.bars[-1][wire.segment]
            self.shapes.append(Line(((at, y), (at, end)), ALARM if wire.cut else INK, dashed=wire.cut, dot=True))
        self.wires.clear()
        return self._lanes(hosts, box_top + height)

    def _bars(self, top: float) -> float:
        """The segments' bars of a row with their names; where the words of its wires may begin."""
        places: dict[str, float] = {}
        for number, segment in enumerate(self.picture.segments):
            self.shapes.append(Words(MARGIN, top + 10, clipped(segment.name, NAME_LENGTH), SMALL, bold=True))
            for at, line in enumerate(segment.words, start=1):
                self.shapes.append(Words(MARGIN, top + 10 + 12 * at, line, SMALL, PALE))
            height = 12.0 * (1 + len(segment.words))
            places[segment.name] = y = top + height / 2
            self.shapes.append(Line(((self._bar_start(number), y), (self.right, y)), INK, 4.0))
            top += height + PAD
        self.bars.append(places)
        return top

    def _bar_start(self, number: int) -> float:
        """The left end of a bar. The first reaches furthest out: what joins it to the next row passes the others."""
        return self.left - PAD - SPINE_GAP * (len(self.picture.segments) - 1 - number)

    def _lanes(self, hosts: Sequence[PictureHost], top: float) -> float:
        """The lanes of a row below hosts that end at *top*, and the rails that lead down to them."""
        places: dict[str, float] = {}
        for number, network in enumerate(self.measures.spanning):
            rails = []
            for column, host in enumerate(hosts):
                if any(plug.network == network for each in host.containers for plug in each.plugs):
                    rails.append(self.left + column * (self.measures.host + GAP) + self.measures.rail(network))
            if not rails:
                continue
            places[network] = y = top + LANE * (number + 1)
            colour, end = self.colours[network], self._lane_end(number)
            self.shapes.append(Line(((min(rails), y), (end, y)), colour, 4.0))
            self.shapes += [Line(((rail, top), (rail, y)), colour, 2.5, dot=True) for rail in rails]
            x = self.right + PAD + SPINE_GAP * len(self.measures.spanning) + PAD
            self.shapes.append(Words(x, y + 4, clipped(network, NAME_LENGTH), colour=colour, bold=True))
        self.lanes.append(places)
        return top + LANE * (len(self.measures.spanning) + 1)

    def _lane_end(self, number: int) -> float:
        return self.right + PAD + SPINE_GAP * (len(self.measures.spanning) - number)

    def _join_rows(self) -> None:
        """A segment is one, and so is a network, however many rows of hosts there are."""
        for number, segment in enumerate(self.picture.segments):
            x, heights = self._bar_start(number), [row[segment.name] for row in self.bars]
            if len(heights) > 1:
                self.shapes.append(Line(((x, heights[0]), (x, heights[-1])), INK, 4.0))
        for number, network in enumerate(self.measures.spanning):
            x, heights = self._lane_end(number), [row[network] for row in self.lanes if network in row]
            if len(heights) > 1:
                self.shapes.append(Line(((x, heights[0]), (x, heights[-1])), self.colours[network], 4.0))
