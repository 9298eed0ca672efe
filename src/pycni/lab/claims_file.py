"""What must hold, as a scenario's file says it: one mapping for each claim, read and doubted."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from pycni.lab.document import Fields, Node, Problems
from pycni.lab.faults import parse_percent
from pycni.lab.naming import Known
from pycni.lab.scenario import CLAIMS, Expectation


class ClaimReader:
    """Reads the entries of `expect` and `meanwhile`; *within_s* is the deadline of those that name none."""

    def __init__(self, known: Known, within_s: float) -> None:
        self.known = known
        self.problems: Problems = known.problems
        self.within_s = within_s
        self._readers: dict[str, Callable[[Node], Expectation]] = {
            "reach": self._reach,
            "unreachable": lambda node: self._reach(node, "unreachable"),
            "address": self._address,
            "port": self._port,
            "throughput": self._throughput,
            "run": self._run,
        }

    def read(self, node: Node) -> Expectation | None:
        """One entry; None where it cannot even be told what it claims."""
        fields = Fields(node, self.problems)
        claims = [claim for claim in CLAIMS if fields.get(claim) is not None or fields.has(claim)]
        if len(claims) != 1:
            if not claims:
                fields.finish()
            self.problems.add(node, f"must have exactly one of {', '.join(CLAIMS)}")
            return None
        claim = claims[0]
        inner = fields.get(claim)
        if inner is None:
            fields.wrong(claim, "needs to be said of what")
            return None
        common = {
            "line": node.line,
            "within_s": self.known.span(fields, "within", self.within_s),
            "hold_s": self.known.span(fields, "for", 0.0),
            "gap_s": self.known.span(fields, "gap", 0.0),
        }
        fields.finish()
        return self._readers[claim](inner).replace(**common)

    def _reach(self, node: Node, claim: str = "reach") -> Expectation:
        """`reach: all`, `reach: NETWORK`, or a mapping with from, to, network and family."""
        if isinstance(node.value, str):
            named = "" if node.value == "all" else self.known.network(node, node.value)
            return Expectation(claim, node.line, network=named)
        fields = Fields(node, self.problems)
        source, target = fields.text("from", "*/*"), fields.text("to", "*/*")
        for key, pattern in (("from", source), ("to", target)):
            self.known.pattern(fields, key, pattern)
        network = fields.get("network")
        made = Expectation(
            claim,
            node.line,
            source=source,
            target=target,
            network=self.known.network(network, str(network.value)) if network else "",
            family=self.known.family(fields),
        )
        fields.finish()
        return made

    def _address(self, node: Node) -> Expectation:
        """`address: {of: h1/web, network: blue, is: 10.1.0.5}`; `is` may be a list and hold prefixes."""
        fields = Fields(node, self.problems)
        source = self.known.place(fields, "of")
        network, wanted = fields.get("network"), fields.get("is")
        addresses = []
        for each in (wanted.value if isinstance(wanted.value, tuple) else (wanted,)) if wanted else ():
            try:
                ipaddress.ip_network(str(each.value))
                addresses.append(str(each.value))
            except ValueError:
                self.problems.add(each, f"{each.plain!r} is neither an address nor a prefix")
        if wanted is None:
            fields.wrong("is", "needs `is`: an address, a prefix, or a list of them")
        if source and "/" not in source:
            fields.wrong("of", f"{source!r} is not HOST/CONTAINER")
        name = self.known.network(network, str(network.value)) if network else ""
        fields.finish()
        return Expectation("address", node.line, source=source, network=name, addresses=tuple(addresses))

    def _port(self, node: Node) -> Expectation:
        fields = Fields(node, self.problems)
        made = Expectation(
            "port",
            node.line,
            source=self.known.place(fields, "from"),
            target=self.known.place(fields, "to", addresses=True),
            port=fields.integer("port", 1, 65535, 0),
            protocol=fields.word("protocol", ("tcp", "udp"), "tcp"),
            send=fields.text("send"),
            answer=fields.text("answer"),
            refused=not fields.flag("open", True),
            family=self.known.family(fields),
        )
        if not made.port:
            fields.wrong("port", "needs `port`, a number")
        if made.protocol == "udp" and not made.send:
            fields.wrong("send", "a UDP port answers only what it is sent: say `send`")
        fields.finish()
        return made

    def _throughput(self, node: Node) -> Expectation:
        fields = Fields(node, self.problems)
        share = fields.get("share")
        made = Expectation(
            "throughput",
            node.line,
            source=self.known.place(fields, "from"),
            target=self.known.place(fields, "to"),
            share=self.known.checked(share, parse_percent, 0.0) if share else 0.0,
            seconds=self.known.span(fields, "during", 1.0),
            family=self.known.family(fields),
        )
        if share is None:
            fields.wrong("share", "needs `share`, such as 50%: of what the two hosts get without any network of ours")
        if made.source.partition("/")[0] == made.target.partition("/")[0]:
            fields.wrong("to", "both ends are on one host: there is no underlay between them")
        fields.finish()
        return made

    def _run(self, node: Node) -> Expectation:
        fields = Fields(node, self.problems)
        made = Expectation(
            "run",
            node.line,
            source=self.known.place(fields, "on"),
            command=self.known.command(fields),
            exit_code=fields.integer("exit", 0, 255, 0),
            answer=fields.text("output"),
        )
        fields.finish()
        return made
