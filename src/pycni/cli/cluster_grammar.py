"""The grammar of the commands that look at networks over several hosts: peers, networks, trace. Part of `parser`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pycni.cli.networks import DEFAULT_CONF_DIR

PROTOCOLS = ("tcp", "udp", "icmp")
_NETWORK_HELP = "name of a network in the configuration directory, or a path to a .conflist or .conf file"
_END_HELP = "a container (id, beginning of an id, CONTAINER/IFNAME, NETWORK/CONTAINER/IFNAME) or an address"


def add_cluster_commands(commands: argparse._SubParsersAction[Any]) -> None:
    peers = commands.add_parser("peers", help="hosts that share a network, who of them knows what, and who is missing")
    peers.add_argument("network", metavar="NETWORK", nargs="?", help="only this network")
    peers.add_argument(
        "--endpoints", action="store_true", help="the containers of NETWORK instead, on which host each is"
    )
    networks = commands.add_parser("networks", help="networks of this host and of its clusters")
    directory = os.environ.get("NETCONFPATH") or DEFAULT_CONF_DIR
    for one in (peers, networks):
        _conf_dir(one, directory)
        _json(one, False)
    verbs = networks.add_subparsers(dest="networks_command", metavar="COMMAND")
    create = verbs.add_parser("create", help="put a network's record into etcd, ahead of its first container")
    remove = verbs.add_parser("remove", help="take a network's record out of etcd, once no host takes part in it")
    create.add_argument("network", metavar="NETWORK", help=_NETWORK_HELP)
    remove.add_argument("network", metavar="NETWORK", help=f"{_NETWORK_HELP}, or a name as `pycni networks` shows")
    for one in (create, remove):
        _conf_dir(one, argparse.SUPPRESS)  # they may be said before the second word as well
        _json(one, argparse.SUPPRESS)
    trace = commands.add_parser("trace", help="walk a packet's way over what the kernel has; name what is missing")
    trace.add_argument("source", metavar="SRC", help=_END_HELP)
    trace.add_argument("target", metavar="DST", help=_END_HELP)
    packet_options(trace)
    _json(trace, False)


def packet_options(trace: argparse.ArgumentParser) -> None:
    """--port and --proto of a command that traces."""
    trace.add_argument("--port", metavar="N", type=_port, help="the destination's port: is it published, or guarded?")
    trace.add_argument("--proto", choices=PROTOCOLS, help="protocol of the packet (icmp; with --port tcp)")


def _conf_dir(parser: argparse.ArgumentParser, default: str) -> None:
    text = f"directory of network configurations (NETCONFPATH, else {DEFAULT_CONF_DIR})"
    parser.add_argument("--conf-dir", metavar="DIR", default=default, help=text)


def _json(parser: argparse.ArgumentParser, default: bool | str) -> None:
    text = "print JSON instead of text, errors as CNI error objects"
    parser.add_argument("--json", action="store_true", default=default, help=text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port in 1..65535")
    return int(text)
