"""A scenario as its file describes it, as values: what is done to a lab, and what must hold after each step."""

from __future__ import annotations

from pycni.cni.value import Value
from pycni.lab.topology import Lab

DEFAULT_WITHIN_S = 10.0

#: Verbs that break or mend something; the command line has the same.
PLAIN_VERBS = ("cut", "unplug", "heal", "kill", "start", "reboot")  # of targets
VALUE_VERBS = ("loss", "delay", "rate", "mtu")  # of links, each with a value
VERBS = (*PLAIN_VERBS, *VALUE_VERBS, "split", "run")
CLAIMS = ("reach", "unreachable", "address", "port", "throughput", "run")


class Action(Value):
    """One thing to do. *targets* are links, hosts or processes; *value* that of a VALUE_VERB, as text."""

    verb: str
    line: int
    targets: tuple[str, ...] = ()
    value: str = ""
    parties: tuple[tuple[str, ...], ...] = ()  # of a split
    command: tuple[str, ...] = ()  # of run

    @property
    def words(self) -> str:
        """The action in a line."""
        if self.verb == "split":
            return "split " + " | ".join(" ".join(party) for party in self.parties)
        if self.verb == "run":
            return f"run on {self.targets[0]}: {' '.join(self.command)}"
        return " ".join(filter(None, (self.verb, *self.targets, self.value)))


class Expectation(Value):
    """What must hold.

    *claim* is one of CLAIMS; it must come true within *within_s* seconds, and stay so for *hold_s*. *source* and
    *target* are patterns (`h1/*`, `*`) for reach and unreachable, else one HOST, HOST/CONTAINER or address.
    """

    claim: str
    line: int
    within_s: float = DEFAULT_WITHIN_S
    hold_s: float = 0.0
    source: str = "*/*"
    target: str = "*/*"
    network: str = ""  # "": any
    family: int = 0  # 0: both
    addresses: tuple[str, ...] = ()  # address: that it must have; prefixes say in which
    port: int = 0
    protocol: str = "tcp"
    send: str = ""
    answer: str = ""  # text that the answer, or the output, must contain
    refused: bool = False  # port: nobody may answer
    share: float = 0.0  # throughput: of the raw underlay's, in per cent
    seconds: float = 1.0
    command: tuple[str, ...] = ()
    exit_code: int = 0
    gap_s: float = 0.0  # meanwhile: how long there may be no answer; 0: every echo must come back

    @property
    def words(self) -> str:
        """The expectation in a line."""
        return _WORDS[self.claim](self) + (f", for {self.hold_s:g} s" if self.hold_s else "")


class Step(Value):
    """*actions* one after the other, then *expectations*; *meanwhile* must hold through all of it."""

    name: str
    line: int
    actions: tuple[Action, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    meanwhile: tuple[Expectation, ...] = ()


class Scenario(Value):
    """The whole file; *lab* is None where it is about a lab that is up already."""

    name: str
    steps: tuple[Step, ...]
    lab: Lab | None = None

    __hash__ = None  # type: ignore[assignment]  # a lab holds dicts


def _reaching(verb: str, each: Expectation) -> str:
    family = f" over IPv{each.family}" if each.family else ""
    if (each.source, each.target) == ("*/*", "*/*"):
        return f"{verb} {each.network or 'all'}{family}"
    network = f" on {each.network}" if each.network else ""
    return f"{verb} {each.source} → {each.target}{network}{family}"


def _address(each: Expectation) -> str:
    network = f" on {each.network}" if each.network else ""
    return f"address of {each.source}{network}: {', '.join(each.addresses)}"


def _port(each: Expectation) -> str:
    verdict = "is refused" if each.refused else f"answers {each.answer!r}" if each.answer else "answers"
    return (
        f"port {each.port}/{each.protocol} of {each.target} {verdict} {'to' if each.refused else 'for'} {each.source}"
    )


def _throughput(each: Expectation) -> str:
    return f"throughput {each.source} → {each.target} at least {each.share:g} % of the underlay's"


def _run(each: Expectation) -> str:
    said = f" says {each.answer!r}" if each.answer else f" ends with {each.exit_code}"
    return f"on {each.source}: `{' '.join(each.command)}`{said}"


_WORDS = {
    "reach": lambda each: _reaching("reach", each),
    "unreachable": lambda each: _reaching("unreachable", each),
    "address": _address,
    "port": _port,
    "throughput": _throughput,
    "run": _run,
}
