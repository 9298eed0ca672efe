"""Boxes, lines and words at places, and the SVG text of them: what the lab's pictures are made of.

All lengths are in pixels. Words are in a fixed-width face, so that their width is known without the reader's fonts:
0.602 of the size for every character in DejaVu Sans Mono and Menlo, 0.6 in Courier, 0.55 in Consolas.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from pycni.cni.value import Value

FACE = "DejaVu Sans Mono, Menlo, Consolas, Courier New, monospace"
ADVANCE = 0.61  # of the size, for each character: the widest of these faces, and a little
SIZE = 11.0
INK, PALE, PAPER, ALARM = "#1c2126", "#5c6670", "#ffffff", "#c3262e"

#: Told apart by readers who do not see red or green as others do (the set of M. Okabe and K. Ito, yellow darkened).
NETWORK_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a7b00", "#56b4e9", "#7a4ea3", "#7f4f24")


class Box(Value):
    """A rectangle; *tip* is what a pointer resting on it shows."""

    x: float
    y: float
    width: float
    height: float
    fill: str = PAPER
    stroke: str = INK
    dashed: bool = False
    radius: float = 4.0
    tip: str = ""

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def holds(self, other: Box) -> bool:
        """Whether *other* lies within this one, edges included."""
        across = self.x <= other.x and other.right <= self.right
        return across and self.y <= other.y and other.bottom <= self.bottom

    def meets(self, other: Box) -> bool:
        """Whether the two share any area."""
        across = self.x < other.right and other.x < self.right
        return across and self.y < other.bottom and other.y < self.bottom


class Words(Value):
    """One line of text; *x* is its left edge (its middle or right edge: *anchor*), *y* its base line."""

    x: float
    y: float
    text: str
    size: float = SIZE
    colour: str = INK
    bold: bool = False
    anchor: str = "start"  # or "middle", "end": the values of SVG's text-anchor
    tip: str = ""

    @property
    def area(self) -> Box:
        """What the line covers, from the tallest letter to the lowest tail."""
        width = width_of(self.text, self.size)
        left = self.x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor]
        return Box(left, self.y - 0.8 * self.size, width, 1.02 * self.size)


class Line(Value):
    """A line through *points*; with *dot* its end is marked, as where a wire meets a rail."""

    points: tuple[tuple[float, float], ...]
    colour: str = INK
    width: float = 1.5
    dashed: bool = False
    dot: bool = False


Shape = Box | Words | Line


class Drawing(Value):
    """A picture of that size; shapes that come later lie above."""

    width: float
    height: float
    title: str
    shapes: tuple[Shape, ...]


def width_of(text: str, size: float = SIZE) -> float:
    return len(text) * size * ADVANCE


def widest(texts: Sequence[str], size: float = SIZE) -> float:
    return max((width_of(text, size) for text in texts), default=0.0)


def clipped(text: str, length: int) -> str:
    """*text*, its end replaced by an ellipsis where it is longer than *length* characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def render_svg(drawing: Drawing) -> str:
    """A file of its own: no script, style sheet, font or picture from elsewhere."""
    width, height = _number(drawing.width), _number(drawing.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" font-family={quoteattr(FACE)}>',
        f"<title>{escape(drawing.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        *map(_shape, drawing.shapes),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _shape(shape: Shape) -> str:
    if isinstance(shape, Box):
        return _box(shape)
    if isinstance(shape, Words):
        return _words(shape)
    return _line(shape)


def _box(box: Box) -> str:
    place = f'x="{_number(box.x)}" y="{_number(box.y)}" width="{_number(box.width)}" height="{_number(box.height)}"'
    radius = f' rx="{_number(box.radius)}"' if box.radius else ""
    edge = f' stroke="{box.stroke}"' if box.stroke else ""
    dashes = ' stroke-dasharray="5 3"' if box.dashed else ""
    return _tipped("rect", f'{place}{radius} fill="{box.fill}"{edge}{dashes}', "", box.tip)


def _words(words: Words) -> str:
    weight = ' font-weight="bold"' if words.bold else ""
    anchor = f' text-anchor="{words.anchor}"' if words.anchor != "start" else ""
    place = f'x="{_number(words.x)}" y="{_number(words.y)}" font-size="{_number(words.size)}" fill="{words.colour}"'
    return _tipped("text", f'{place}{weight}{anchor} xml:space="preserve"', escape(words.text), words.tip)


def _line(line: Line) -> str:
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in line.points)
    dashes = ' stroke-dasharray="5 3"' if line.dashed else ""
    stroke = f'fill="none" stroke="{line.colour}" stroke-width="{_number(line.width)}"{dashes}'
    drawn = f'<polyline points="{points}" {stroke}/>'
    if not line.dot:
        return drawn
    x, y = line.points[-1]
    return f'{drawn}<circle cx="{_number(x)}" cy="{_number(y)}" r="{_number(line.width + 1.5)}" fill="{line.colour}"/>'


def _tipped(tag: str, attributes: str, text: str, tip: str) -> str:
    inner = text + (f"<title>{escape(tip)}</title>" if tip else "")
    return f"<{tag} {attributes}>{inner}</{tag}>" if inner else f"<{tag} {attributes}/>"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
