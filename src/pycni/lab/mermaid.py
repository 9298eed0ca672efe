"""The same picture as Mermaid text, for pages that draw it themselves (a README, an issue)."""

from __future__ import annotations

from pycni.lab.drawing import ALARM
from pycni.lab.graph import colours_of
from pycni.lab.picture import Picture, PictureHost, Plug, Station, Wire


def render_mermaid(picture: Picture) -> str:
    """A flowchart: hosts as subgraphs, networks coloured, addresses and ports on the edges."""
    ids = _Ids()
    lines = ["flowchart TB"]
    lines += [
        f"  {ids.of('segment', each.name)}{_label('[', (each.name, *each.words), ']')}" for each in picture.segments
    ]
    lines += [line for station in picture.stations for line in _station(station, ids)]
    lines += [line for host in picture.hosts for line in _host(host, picture, ids)]
    for network in picture.networks:
        if network.spans:
            lines.append(f"  {ids.of('network', network.name)}{_label('([', (network.name, *network.words), '])')}")
    lines += [line for host in picture.hosts for line in _edges(host, picture, ids)]
    lines += _styles(picture, ids)
    return "\n".join(lines) + "\n"


class _Ids:
    """Names for Mermaid, which reads some of ours ("end", "a-b") as its own words."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], str] = {}

    def of(self, kind: str, *names: str) -> str:
        return self._known.setdefault((kind, *names), f"{kind[0]}{len(self._known) + 1}")

    def all(self, kind: str, *names: str) -> list[str]:
        """The ids of those that begin with these names."""
        wanted = (kind, *names)
        return [known for key, known in self._known.items() if key[: len(wanted)] == wanted]


def _text(lines: tuple[str, ...]) -> str:
    # Entities are Mermaid's way to have these characters in a text: #quot; and the like.
    text = "<br>".join(line.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;") for line in lines if line)
    return f'"{text}"'


def _label(before: str, lines: tuple[str, ...], after: str) -> str:
    return f"{before}{_text(lines)}{after}"


def _station(station: Station, ids: _Ids) -> list[str]:
    own = ids.of("etcd" if station.kind == "etcd" else "router", station.name)
    shape = ("[(", ")]") if station.kind == "etcd" else ("{{", "}}")
    node = f"  {own}{_label(shape[0], (station.name, station.trouble), shape[1])}"
    return [node, *(_wire(own, wire, ids) for wire in station.wires)]


def _wire(own: str, wire: Wire, ids: _Ids) -> str:
    arrow = "-.-" if wire.cut else "---"
    words = (wire.ifname, *wire.addresses, *wire.notes, *(("cut",) if wire.cut else ()))
    return f"  {own} {arrow}|{_text(words)}| {ids.of('segment', wire.segment)}"


def _host(host: PictureHost, picture: Picture, ids: _Ids) -> list[str]:
    own = ids.of("host", host.name)
    lines = [f"  subgraph {own}{_label('[', (host.name, host.trouble or host.words), ']')}"]
    lines.append("    direction TB")
    for container in host.containers:
        made = ids.of("container", host.name, container.name)
        lines.append(f"    {made}{_label('[', (container.name, container.trouble), ']')}")
    used = {plug.network for each in host.containers for plug in each.plugs}
    for network in picture.networks:
        if network.name in used and not network.spans:
            made = ids.of("network", network.name, host.name)
            lines.append(f"    {made}{_label('([', (network.name, *network.words), '])')}")
    return [*lines, "  end"]


def _edges(host: PictureHost, picture: Picture, ids: _Ids) -> list[str]:
    spanning = {each.name for each in picture.networks if each.spans}
    lines = [_wire(ids.of("host", host.name), wire, ids) for wire in host.wires]
    for container in host.containers:
        own = ids.of("container", host.name, container.name)
        for plug in container.plugs:
            names = (plug.network,) if plug.network in spanning else (plug.network, host.name)
            lines.append(f"  {own} ---|{_text(_edge(plug))}| {ids.of('network', *names)}")
    return lines


def _edge(plug: Plug) -> tuple[str, ...]:
    return (plug.ifname, *plug.addresses, *plug.ports)


def _styles(picture: Picture, ids: _Ids) -> list[str]:
    lines = []
    for name, colour in colours_of(picture.networks).items():
        lines += [f"  style {own} fill:{colour},color:#fff" for own in ids.all("network", name)]
    for host in picture.hosts:
        if host.trouble:
            lines.append(f"  style {ids.of('host', host.name)} stroke:{ALARM},stroke-dasharray:5 3")
        troubled = [each.name for each in host.containers if each.trouble]
        lines += [f"  style {ids.of('container', host.name, name)} stroke:{ALARM}" for name in troubled]
    return lines
