"""The grammar of those verbs of `pycni lab` that look at a lab from outside, break it, mend it and test it."""

from __future__ import annotations

import argparse
from typing import Any

from pycni.cli.cluster_grammar import packet_options
from pycni.cli.lab_parser import LAB_HELP, json_errors_option, json_option, lab_option, number_from

LINK = "HOST, HOST:INTERFACE or HOST:SEGMENT"
PROCESS = "`agent HOST`, `etcd MEMBER` or `host HOST`"


def add(verbs: Any) -> None:
    """Add them to the verbs of `pycni lab`."""
    _add_faults(verbs)
    _add_looks(verbs)
    test = verbs.add_parser("test", help="carry a scenario out: what is done, and what must hold after each step")
    test.add_argument("scenario", metavar="SCENARIO.yaml", nargs="+", help="the file: docs/lab-scenarios.md")
    test.add_argument("--lab", metavar="LAB", help="a lab that is up, instead of the one that the file names")
    test.add_argument("--name", metavar="NAME", help="another name for the lab that is brought up")
    test.add_argument("--keep", action="store_true", help="leave the lab up that was brought up for it")
    test.add_argument("--keep-going", action="store_true", help="do the steps after one that failed, too")
    test.add_argument("--junit", metavar="FILE", help="write a report as JUnit XML")
    test.add_argument("--report", metavar="FILE", help="write a report as JSON")
    test.add_argument("--json", action="store_true", help="print the JSON report; progress goes to stderr")


def _add_faults(verbs: Any) -> None:
    cut = verbs.add_parser("cut", help="let nothing pass over a link")
    cut.add_argument("--no-carrier", action="store_true", help="take the carrier, too: the plug is pulled")
    _links(cut)
    for name, metavar, example, text in (
        ("loss", "SHARE", "20%", "let a link lose packets at random"),
        ("delay", "TIME", "50ms", "make a link slow to answer, each way (needs netem in the kernel)"),
        ("rate", "RATE", "10mbit", "let a link pass so much and no more"),
        ("mtu", "BYTES", "1400", "give both ends of a link another MTU"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("value", metavar=metavar, help=f"such as {example}".replace("%", "%%"))  # argparse fills in
        _links(verb)
    split = verbs.add_parser("split", help="let hosts of different parties not hear each other")
    split.add_argument("parties", metavar="HOST,HOST…", nargs="+", help="a party; hosts in none hear all")
    _common(split)
    kill = verbs.add_parser("kill", help="end an agent, a member of etcd or a host without warning")
    start = verbs.add_parser("start", help="start again what was killed")
    for verb in (kill, start):
        verb.add_argument("kind", metavar="KIND", choices=("agent", "etcd", "host"), help="agent, etcd or host")
        verb.add_argument("names", metavar="NAME", nargs="+", help="the host's name; of etcd the member's")
        _common(verb)
    reboot = verbs.add_parser("reboot", help="boot a host: namespaces, links and rules go, /var/lib and /etc stay")
    reboot.add_argument("hosts", metavar="HOST", nargs="+", help="the hosts, one after the other")
    _common(reboot)
    heal = verbs.add_parser("heal", help="undo faults; without WHAT all of them")
    kinds = "cut, loss, delay, rate, mtu, split, kill"
    heal.add_argument("what", metavar="WHAT", nargs="*", help=f"a kind ({kinds}), {LINK}, or {PROCESS} in quotes")
    _common(heal)


def _add_looks(verbs: Any) -> None:
    graph = verbs.add_parser("graph", help="draw it: hosts, containers, networks, addresses, ports, faults")
    graph.add_argument("-o", "--output", metavar="FILE", help="write to it; .mmd and .md are Mermaid (stdout, as -)")
    graph.add_argument("--format", choices=("svg", "mermaid"), help="what to write, whatever the file is called (svg)")
    json_option(graph)
    _named_lab(graph)
    matrix = verbs.add_parser("ping-matrix", help="ping from every container to every other, over IPv4 and IPv6")
    matrix.add_argument("-c", "--count", metavar="N", type=number_from(1), default=3, help="echoes for each pair (3)")
    matrix.add_argument("-w", "--timeout", metavar="SECONDS", type=float, default=1.0, help="to wait for each (1)")
    _family(matrix)
    matrix.add_argument("--picture", metavar="FILE.svg", help="draw it, too")
    matrix.add_argument("--compact", action="store_true", help="one character for each pair, as on a narrow terminal")
    json_option(matrix)
    _named_lab(matrix)
    trace = verbs.add_parser("trace", help="walk a packet's way over the hosts' kernels; name what is missing")
    for end in ("source", "target"):
        trace.add_argument(end, metavar="HOST[/CONTAINER]", help="h1/web, h1 itself, or an address")
    packet_options(trace)
    _family(trace)
    lab_option(trace)
    json_option(trace)
    capture = verbs.add_parser("capture", help="run tcpdump on a host, in a container or at the switch")
    capture.add_argument(
        "target", metavar="TARGET", help="HOST, HOST/CONTAINER, or switch:HOST for the other end of its cable"
    )
    capture.add_argument("-i", "--interface", metavar="IF", default="", help="any, unless said")
    capture.add_argument("-w", "--write", metavar="FILE", default="", help="write pcap (-: to stdout) instead of text")
    capture.add_argument("-c", "--count", metavar="N", type=int, default=0, help="stop after so many packets")
    capture.add_argument("-t", "--time", metavar="SECONDS", type=float, default=0.0, help="stop after so long")
    capture.add_argument("--filter", metavar="EXPRESSION", default="", help="as pcap-filter(7) has it: 'udp port 4789'")
    lab_option(capture)
    json_errors_option(capture)


def _family(parser: argparse.ArgumentParser) -> None:
    families = parser.add_mutually_exclusive_group()
    families.add_argument("-4", dest="family", action="store_const", const=4, default=0, help="IPv4 only")
    families.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")


def _links(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("links", metavar="LINK", nargs="+", help=LINK)
    _common(parser)


def _common(parser: argparse.ArgumentParser) -> None:
    """What every verb has that breaks or mends."""
    lab_option(parser)
    json_option(parser, "print what was done, and the faults there are now, as JSON")


def _named_lab(parser: argparse.ArgumentParser) -> None:
    """The lab as the verb's only word, as `ps` and `down` have it, or by --lab, as all verbs have it."""
    parser.add_argument("named_lab", metavar="LAB", nargs="?", help=LAB_HELP)
    lab_option(parser)
