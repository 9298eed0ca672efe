"""The grammar of the command line. Completion and the man page are made from this parser and from nothing else."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pycni.agent.config import DEFAULT_PATH, DEFAULT_SOCKET
from pycni.cli import capabilities
from pycni.cli.cache import DEFAULT_CACHE_DIR
from pycni.cli.cluster_grammar import add_cluster_commands
from pycni.cli.events import parse_span
from pycni.cli.failure import USAGE
from pycni.cli.grammar import NAMES
from pycni.cli.lab_parser import add_lab_command
from pycni.cli.launcher import KINDS
from pycni.cli.misuse import Parser
from pycni.cli.networks import DEFAULT_CONF_DIR
from pycni.cli.runtime import DEFAULT_PLUGIN_DIRS
from pycni.cli.systemd import DEFAULT_UNIT_DIR

DEFAULT_BIN_DIR = "/opt/cni/bin"
NETWORK_HELP = "name of a network in the configuration directory, or a path to a .conflist or .conf file"
NETNS_HELP = "a namespace: path, name under /run/netns, or PID of a process in it"
CONTAINER_HELP = "container id, or the beginning of one, or a pod name or alias"
TARGET_HELP = f"{NETNS_HELP}; or a container: {CONTAINER_HELP}"
EXIT_CODES = (
    (0, "done; for `check`, all is as ADD left it; for `doctor`, nothing to report"),
    (1, "a plugin, the kernel or the disk refused; for `doctor`, warnings; for `trace`, something is missing"),
    (2, "the command line is wrong; for `doctor`, there are failures"),
    (3, "no such network, plugin, namespace, container or lease; no agent"),
    (130, "interrupted"),
)


def _json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text, errors as CNI error objects")


def _network_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("network", metavar="NETWORK", nargs=None if required else "?", help=NETWORK_HELP)
    parser.add_argument(
        "--conf-dir",
        metavar="DIR",
        default=os.environ.get("NETCONFPATH") or DEFAULT_CONF_DIR,
        help=f"directory of network configurations (NETCONFPATH, else {DEFAULT_CONF_DIR})",
    )
    parser.add_argument(
        "--plugin-dir",
        metavar="DIR",
        action="append",
        help=f"directory of plugins; may be repeated (CNI_PATH, else {os.pathsep.join(DEFAULT_PLUGIN_DIRS)})",
    )
    _cache_option(parser)
    _json_option(parser)


def _cache_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        default=DEFAULT_CACHE_DIR,
        help=f"result cache shared with the runtimes that use libcni ({DEFAULT_CACHE_DIR})",
    )


def _attachment_options(parser: argparse.ArgumentParser, metavar: str, text: str) -> None:
    parser.add_argument("target", metavar=metavar, help=text)
    parser.add_argument("--ifname", metavar="NAME", help="interface in the container (eth0)")
    parser.add_argument("--container-id", metavar="ID", help="container id (made from the namespace's path)")
    parser.add_argument(
        "--args",
        metavar="K=V",
        action="append",
        default=[],
        type=capabilities.parse_pair,
        help="one pair for CNI_ARGS; may be repeated",
    )


def _capability_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("capability arguments", "given to the plugins that declare the capability")
    append = {"action": "append", "default": []}
    one = (
        (
            "--port",
            "[IP:]HOST:CTR[/PROTO]",
            capabilities.parse_port,
            "map a host port (or range 80-89) to the container",
        ),
        ("--ip", "ADDRESS", capabilities.parse_requested_address, "ask for this address"),
        ("--ip-range", "SUBNET[,A-B][,gateway=G]", capabilities.parse_ip_range, "take an address from this range"),
        ("--dns", "SERVER", str, "name server"),
        ("--dns-search", "DOMAIN", str, "search domain"),
        ("--dns-option", "OPTION", str, "resolver option"),
        ("--capability-args", "JSON", capabilities.parse_object, "any capability arguments, as a JSON object"),
    )
    for name, metavar, kind, text in one:
        group.add_argument(name, metavar=metavar, type=kind, help=f"{text}; may be repeated", **append)  # type: ignore[arg-type]
    group.add_argument(
        "--mac", metavar="MAC", type=capabilities.parse_mac, help="MAC address of the container's interface"
    )


def _add_runtime_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    add = commands.add_parser("add", help="attach a namespace to a network (CNI ADD)")
    _network_options(add)
    _attachment_options(add, "NETNS", NETNS_HELP)
    _capability_options(add)
    delete = commands.add_parser("del", aliases=["rm"], help="detach a container from a network (CNI DEL)")
    delete.set_defaults(command="del")  # whichever word was typed
    _network_options(delete)
    _attachment_options(delete, "NETNS|CONTAINER", TARGET_HELP)
    _capability_options(delete)
    check = commands.add_parser("check", help="is the attachment as ADD left it? (CNI CHECK)")
    _network_options(check)
    _attachment_options(check, "NETNS|CONTAINER", TARGET_HELP)
    collect = commands.add_parser("gc", help="remove what belongs to containers that are gone (CNI GC)")
    _network_options(collect)
    collect.add_argument(
        "--keep",
        metavar="ID[/IFNAME]",
        action="append",
        default=[],
        help="this container is alive although its namespace cannot be seen; may be repeated",
    )
    collect.add_argument("--dry-run", action="store_true", help="only say which attachments would be removed")
    status = commands.add_parser("status", help="can the network take containers? (CNI STATUS)")
    _network_options(status)
    version = commands.add_parser(
        "version", help="versions the plugins of a network speak; without NETWORK, pycni's own"
    )
    _network_options(version, required=False)


def _add_show_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    listing = commands.add_parser(
        "list", aliases=["ls"], help="attachments made by pycni's plugins, and what became of them"
    )
    listing.set_defaults(command="list")
    listing.add_argument("--network", metavar="NAME", help="only this network")
    _json_option(listing)
    inspect = commands.add_parser("inspect", help="everything known of a container: record, result, kernel objects")
    inspect.add_argument("container", metavar="NETNS|CONTAINER", help=TARGET_HELP)
    inspect.add_argument("--network", metavar="NAME", help="only this network")
    inspect.add_argument("--ifname", metavar="NAME", help="only this interface")
    _cache_option(inspect)
    _json_option(inspect)
    ports = commands.add_parser("ports", help="host ports that containers have published, and what holds them")
    ports.add_argument("--network", metavar="NAME", help="only this network")
    _json_option(ports)
    ipam = commands.add_parser("ipam", help="addresses given out: leases, utilisation, release")
    _lease_options(ipam, network=None, as_json=False)
    verbs = ipam.add_subparsers(dest="ipam_command", metavar="COMMAND", parser_class=Parser)
    verbs.add_parser("list", help="leases (what `pycni ipam` alone does)")
    usage = verbs.add_parser("usage", help="how full the ranges are")
    usage.add_argument(
        "--conf-dir",
        metavar="DIR",
        default=os.environ.get("NETCONFPATH") or DEFAULT_CONF_DIR,
        help=f"networks whose ranges are shown (NETCONFPATH, else {DEFAULT_CONF_DIR})",
    )
    release = verbs.add_parser("release", help="free an address whose container is gone")
    release.add_argument("address", metavar="ADDRESS", help="the address to free")
    release.add_argument("--yes", action="store_true", help="really do it; without this the lease is only shown")
    for one in verbs.choices.values():
        _lease_options(one, network=argparse.SUPPRESS, as_json=argparse.SUPPRESS)


def _add_etcd_command(commands: argparse._SubParsersAction[Parser]) -> None:
    etcd = commands.add_parser("etcd", help="what etcd holds for a network's cluster")
    etcd.set_defaults(json=False)
    verbs = etcd.add_subparsers(dest="etcd_command", metavar="COMMAND", parser_class=Parser)
    dump = verbs.add_parser("dump", help="every record: who has which address, block, network")
    check = verbs.add_parser("check", help="does every endpoint answer, and do all records belong together?")
    forget = verbs.add_parser("forget", help="declare a host dead that will not return; later, free what it had")
    for one in (dump, check, forget):
        one.add_argument("network", metavar="NETWORK", help=NETWORK_HELP)
        one.add_argument(
            "--conf-dir",
            metavar="DIR",
            default=os.environ.get("NETCONFPATH") or DEFAULT_CONF_DIR,
            help=f"directory of network configurations (NETCONFPATH, else {DEFAULT_CONF_DIR})",
        )
        _json_option(one)
    forget.add_argument("node", metavar="HOST", help="its name or its id, as `pycni peers` shows them")
    forget.add_argument(
        "--quarantine",
        metavar="SECONDS",
        type=float,
        default=600.0,
        help="how long after its death to free what only a person can vouch for: addresses in networks that are no"
        " overlay, and in overlays with hosts that have no agent (600)",
    )


def _lease_options(parser: argparse.ArgumentParser, *, network: str | None, as_json: str | bool) -> None:
    """--network and --json, before or after the second word (a default there would undo what was said before)."""
    parser.add_argument("--network", metavar="NAME", default=network, help="only this network")
    parser.add_argument("--json", action="store_true", default=as_json, help="print JSON instead of text")


def _socket_option(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    text = f"the agent's socket (PYCNI_SOCKET, else {DEFAULT_SOCKET})"
    parser.add_argument("--socket", metavar="PATH", default=default, help=text)


def _add_agent_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    agent = commands.add_parser("agent", help="be the agent, in the foreground, which answers calls without a start")
    _socket_option(agent)
    agent.add_argument("--config", metavar="FILE", help=f"its configuration ({DEFAULT_PATH}, if there)")
    agent.set_defaults(json=False)
    verbs = agent.add_subparsers(dest="agent_command", metavar="COMMAND", parser_class=Parser)
    status = verbs.add_parser("status", help="what the running agent is and has done")
    _socket_option(status, argparse.SUPPRESS)  # it may be said before the second word as well
    _json_option(status)
    reconcile = commands.add_parser("reconcile", help="have the agent compare its records with the kernel now")
    _socket_option(reconcile)
    _json_option(reconcile)
    events = commands.add_parser("events", help="what the agent does, as it happens, until Ctrl-C")
    _socket_option(events)
    events.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    events.add_argument(
        "--since", metavar="TIME", type=parse_span, help="begin with the events of that time: 90s, 10m, 2h"
    )


def _directory(text: str) -> str:
    if not text:  # of a variable that is not set; the working directory would be meant by it
        raise argparse.ArgumentTypeError("no directory is named")
    return text


def _add_host_commands(commands: argparse._SubParsersAction[Parser]) -> None:
    install = commands.add_parser("install", help="write the plugin executables and a default network")
    _json_option(install)
    install.add_argument(
        "--bin-dir",
        metavar="DIR",
        type=_directory,
        default=DEFAULT_BIN_DIR,
        help=f"where runtimes look ({DEFAULT_BIN_DIR})",
    )
    install.add_argument(
        "--conf-dir",
        metavar="DIR",
        type=_directory,
        default=DEFAULT_CONF_DIR,
        help=f"for the network ({DEFAULT_CONF_DIR})",
    )
    install.add_argument(
        "--replace", action="store_true", help="also take the names of the reference plugins, keeping those aside"
    )
    install.add_argument("--no-conf", action="store_true", help="write no network configuration")
    install.add_argument(
        "--launcher",
        choices=KINDS,
        help="kind of executable: compiled, Python, or Python that never asks an agent (the best that runs)",
    )
    install.add_argument("--systemd", action="store_true", help="also write the agent's units for systemd")
    install.add_argument(
        "--unit-dir",
        metavar="DIR",
        type=_directory,
        default=DEFAULT_UNIT_DIR,
        help=f"for the units ({DEFAULT_UNIT_DIR})",
    )
    install.add_argument("--now", action="store_true", help="run the systemctl commands instead of showing them")
    uninstall = commands.add_parser("uninstall", help="undo `pycni install`, giving back what it kept aside")
    _json_option(uninstall)
    uninstall.add_argument("--bin-dir", metavar="DIR", type=_directory, help="only the installation in this directory")
    uninstall.add_argument("--now", action="store_true", help="run the systemctl commands instead of showing them")
    uninstall.add_argument("--force", action="store_true", help="even while containers are attached")
    doctor = commands.add_parser("doctor", help="what on this host would break container networking, and what to do")
    _json_option(doctor)
    doctor.add_argument(
        "--bin-dir",
        metavar="DIR",
        action="append",
        help="also check the executables in this directory, and look there for plugins",
    )
    doctor.add_argument(
        "--conf-dir",
        metavar="DIR",
        default=DEFAULT_CONF_DIR,
        help=f"networks whose files and pools are checked ({DEFAULT_CONF_DIR})",
    )
    completion = commands.add_parser("completion", help="print a shell's completion script")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    completion.add_argument("--names", choices=NAMES, help=argparse.SUPPRESS)  # which the scripts ask for
    commands.add_parser("man", help="print the manual page (roff)")
    helping = commands.add_parser("help", help="show the help of a command, as its --help does")
    helping.add_argument("words", metavar="COMMAND", nargs="*", help="the command, of one word or two")


def build_parser() -> Parser:
    """The whole grammar."""
    parser = Parser(
        prog="pycni",
        description="Container networks by CNI: attach, detach, look, repair.",
        epilog="Exit codes:\n" + "\n".join(f"  {code:<3} {text}" for code, text in EXIT_CODES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print pycni's version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    _add_runtime_commands(commands)
    _add_show_commands(commands)
    _add_etcd_command(commands)
    add_cluster_commands(commands)
    _add_agent_commands(commands)
    add_lab_command(commands, Parser)
    _add_host_commands(commands)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line as a namespace; exits with code 2 and the nearest command for a wrong one."""
    parser = build_parser()
    given = parser.parse_args(argv)
    if not given.version and given.command is None:
        parser.print_help(sys.stderr)
        raise SystemExit(USAGE)
    return parse([*given.words, "--help"]) if given.command == "help" else given
