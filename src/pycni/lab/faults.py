"""What is broken in a lab on purpose, as values, and what the switch and the links must be told for it.

A fault is kept in the lab's state until it is healed; what is in force follows from the list of all of them and from
nothing else, so that a fault can be put on anew after a reboot, or taken back in any order.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pycni.cni.value import Value
from pycni.lab.running import RunningLink

TABLE = "pycni_faults"  # in the bridge family of the switch's namespace
LINK_KINDS = ("cut", "loss", "delay", "rate", "mtu")
KILLED = ("agent", "etcd", "host")
_UNITS = {"": 1, "bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_RATE = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>bit|kbit|mbit|gbit)\Z")
LEAST_RATE = 8_000
_DELAY = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>ms|s)\Z")
MOST_DELAY_MS = 60_000
LEAST_MTU, MOST_MTU = 68, 65535  # RFC 791
LEAST_IPV6_MTU = 1280  # RFC 8200: below it a link has no IPv6


class Fault(Value):
    """One thing that is broken.

    *kind* "cut" (*carrier*: the host's link stays up), "loss" (*amount* in per cent), "delay" (milliseconds each way),
    "rate" (bits per second each way) and "mtu" (bytes) are of one link: *host* and *ifname*. "split": *parties* of
    machines that do not hear each other. "kill": *what* is "agent" or "host" of *host*, or the "etcd" member there.
    """

    kind: str
    host: str = ""
    ifname: str = ""
    amount: float = 0.0
    carrier: bool = True
    parties: tuple[tuple[str, ...], ...] = ()
    what: str = ""

    @property
    def place(self) -> tuple[str, ...]:
        """Where it is: a fault that is made anew at the same place replaces the one before."""
        return (self.kind, self.host, self.ifname, self.what)

    def as_json(self) -> dict[str, Any]:
        told = {name: value for name, value in self.as_dict().items() if value != getattr(_ORDINARY, name)}
        return {**told, "parties": [list(party) for party in self.parties]} if self.parties else told

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Fault:
        return cls(**{**raw, "parties": tuple(tuple(party) for party in raw.get("parties", ()))})


_ORDINARY = Fault(kind="")


class Impairment(Value):
    """What one link must be like: 0 is without limit; *mtu* in bytes."""

    rate_bps: int = 0
    delay_ms: float = 0.0
    mtu: int = 0
    down: bool = False


def faults_in(state: Mapping[str, Any]) -> tuple[Fault, ...]:
    """Those of a lab's state, in the order in which they were made."""
    return tuple(Fault.from_json(raw) for raw in state.get("faults", ()))


def with_fault(faults: Sequence[Fault], fault: Fault) -> tuple[Fault, ...]:
    """*faults* and *fault*, which takes the place of the one that was there."""
    return (*(each for each in faults if each.place != fault.place), fault)


def told(fault: Fault) -> str:
    """The fault in words: "h1:eth0 loses 20 %"."""
    if fault.kind == "split":
        return " and ".join(f"{{{', '.join(party)}}}" for party in fault.parties) + " do not hear each other"
    if fault.kind == "kill":
        return f"host {fault.host} is off" if fault.what == "host" else f"{fault.what} {fault.host} is killed"
    return f"{fault.host}:{fault.ifname} {_LINK_WORDS[fault.kind](fault)}"


_LINK_WORDS: dict[str, Callable[[Fault], str]] = {
    "cut": lambda fault: "is cut" if fault.carrier else "is cut and has no carrier",
    "loss": lambda fault: f"loses {fault.amount:g} %",
    "delay": lambda fault: f"is {fault.amount:g} ms late",
    "rate": lambda fault: f"passes {shown_rate(int(fault.amount))}",
    "mtu": lambda fault: f"has MTU {fault.amount:g}",
}


def note(fault: Fault) -> str:
    """A link's fault for the picture: "loss 20 %"; "" for a cut, which is drawn."""
    if fault.kind == "rate":
        return f"rate {shown_rate(int(fault.amount))}"
    unit = {"loss": " %", "delay": " ms", "mtu": ""}.get(fault.kind)
    return "" if unit is None else f"{fault.kind} {fault.amount:g}{unit}"


def parse_rate(text: str) -> int:
    """Bits per second of "10mbit"; ValueError in words."""
    match = _RATE.match(text.lower())
    if match is None:
        raise ValueError(f"{text!r} is no rate such as 500kbit, 10mbit or 1gbit")
    bits = round(float(match["number"]) * _UNITS[match["unit"]])
    if bits < LEAST_RATE:
        raise ValueError(f"{text!r} is less than {shown_rate(LEAST_RATE)}, which no protocol survives: cut the link")
    return bits


def shown_rate(bits: int) -> str:
    """ "10mbit" for 10000000."""
    unit = next(name for name in ("gbit", "mbit", "kbit", "bit") if bits >= _UNITS[name] or name == "bit")
    return f"{bits / _UNITS[unit]:g}{unit}"


def parse_percent(text: str) -> float:
    """20.0 of "20%" or "20"; ValueError in words."""
    try:
        percent = float(text.removesuffix("%").strip())
    except ValueError:
        percent = -1.0
    if not 0 < percent <= 100:
        raise ValueError(f"{text!r} is no share such as 20% (more than 0, at most 100)")
    return percent


def parse_delay(text: str) -> float:
    """Milliseconds of "50ms" or "0.2s"; ValueError in words."""
    match = _DELAY.match(text)
    milliseconds = float(match["number"]) * (1 if match["unit"] == "ms" else 1000) if match else 0.0
    if not 0 < milliseconds <= MOST_DELAY_MS:
        raise ValueError(f"{text!r} is no delay such as 50ms or 0.2s, of at most {MOST_DELAY_MS / 1000:g} s")
    return milliseconds


def parse_mtu(text: str) -> int:
    """Bytes; ValueError in words."""
    if not text.isascii() or not text.isdigit() or not LEAST_MTU <= int(text) <= MOST_MTU:
        raise ValueError(f"{text!r} is no MTU: bytes, {LEAST_MTU} to {MOST_MTU}")
    return int(text)


# -- what follows from the faults --------------------------------------------------------------------------------------


def impairment(faults: Iterable[Fault], link: RunningLink) -> Impairment:
    """What the faults make of *link*; what the switch drops is not in it."""
    found: dict[str, Fault] = {
        each.kind: each for each in faults if (each.host, each.ifname) == (link.host, link.ifname)
    }
    return Impairment(
        rate_bps=int(found["rate"].amount) if "rate" in found else 0,
        delay_ms=found["delay"].amount if "delay" in found else 0.0,
        mtu=int(found["mtu"].amount) if "mtu" in found else link.mtu,
        down="cut" in found and not found["cut"].carrier,
    )


def qdisc_lines(device: str, wanted: Impairment) -> list[str]:
    """Lines for `tc -batch` that give *device* what it sends through; [] where that is nothing."""
    lines = []
    parent = "root"
    if wanted.delay_ms:
        lines.append(f"qdisc replace dev {device} root handle 1: netem delay {wanted.delay_ms:g}ms limit 10000")
        parent = "parent 1:1"
    if wanted.rate_bps:
        # A bucket of 5 ms, so that a timer of 250 Hz can keep up; at least one full packet of a veth without offloads.
        burst = max(wanted.rate_bps // 8 // 200, 5000)
        lines.append(
            f"qdisc replace dev {device} {parent} handle 10: tbf rate {wanted.rate_bps}bit burst {burst} latency 50ms"
        )
    return lines


def nft_text(faults: Sequence[Fault], links: Sequence[RunningLink]) -> str:
    """A transaction that makes the switch drop what the faults say, and nothing else; run with `nft -f -`."""
    rules = [*_cut_rules(faults, links), *_split_rules(faults, links), *_loss_rules(faults, links)]
    # Made first, so that deleting it works whether it was there or not.
    lines = [f"table bridge {TABLE} {{}}", f"delete table bridge {TABLE}"]
    if rules:
        body = "\n".join(f"    {rule}" for rule in rules)
        chain = "  chain forward {\n    type filter hook forward priority -300\n" + body + "\n  }"
        lines.append(f"table bridge {TABLE} {{\n{chain}\n}}")
    return "\n".join(lines) + "\n"


def _port(links: Sequence[RunningLink], fault: Fault) -> str:
    """The switch's port of the fault's link; "" where the file no longer has that link."""
    return next((link.port for link in links if (link.host, link.ifname) == (fault.host, fault.ifname)), "")


def _cut_rules(faults: Sequence[Fault], links: Sequence[RunningLink]) -> list[str]:
    ports = sorted({port for fault in faults if fault.kind == "cut" and (port := _port(links, fault))})
    if not ports:
        return []
    quoted = ", ".join(f'"{port}"' for port in ports)
    return [f"{end} {{ {quoted} }} drop" for end in ("iifname", "oifname")]


def _loss_rules(faults: Sequence[Fault], links: Sequence[RunningLink]) -> list[str]:
    rules = []
    for fault in faults:
        port = _port(links, fault)
        if fault.kind == "loss" and port:
            share = f"numgen random mod 10000 < {round(fault.amount * 100)} drop"
            rules += [f'{end} "{port}" {share}' for end in ("iifname", "oifname")]
    return rules


def _split_rules(faults: Sequence[Fault], links: Sequence[RunningLink]) -> list[str]:
    """Between ports of one segment nothing passes; between addresses nothing passes on any, routers' ways included."""
    ports: set[str] = set()
    addresses: dict[str, set[str]] = {"ip": set(), "ip6": set()}
    for fault in faults:
        for one, other in itertools.permutations(fault.parties, 2):
            for here, there in itertools.product(_of(links, one), _of(links, other)):
                if here.segment == there.segment:
                    ports.add(f'"{here.port}" . "{there.port}"')
                for family, mine, theirs in (("ip", here.ipv4, there.ipv4), ("ip6", here.ipv6, there.ipv6)):
                    if mine and theirs:
                        addresses[family].add(f"{mine} . {theirs}")
    rules = [f"iifname . oifname {{ {', '.join(sorted(ports))} }} drop"] if ports else []
    for family, pairs in addresses.items():
        if pairs:
            rules.append(f"{family} saddr . {family} daddr {{ {', '.join(sorted(pairs))} }} drop")
    return rules


def _of(links: Sequence[RunningLink], party: Sequence[str]) -> list[RunningLink]:
    return [link for link in links if link.host in party]
