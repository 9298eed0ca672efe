"""The grammar of `pycni lab`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

LAB_HELP = "its name, or its file (without: the only lab that is up)"


def add_lab_command(commands: Any, parser_class: type[argparse.ArgumentParser]) -> None:
    """`lab` and its verbs below the parser's commands."""
    lab = commands.add_parser("lab", help="a multi-host network on this machine: hosts, etcd, containers from one file")
    lab.set_defaults(json=False)
    verbs = lab.add_subparsers(dest="lab_command", metavar="COMMAND", parser_class=parser_class)
    _add_life(verbs)
    _add_looks(verbs)
    _add_programs(verbs)
    from pycni.cli import lab_parser_faults  # which uses the options of this module

    lab_parser_faults.add(verbs)


def lab_option(parser: argparse.ArgumentParser) -> None:
    """--lab, for verbs whose words are something else."""
    parser.add_argument("--lab", metavar="LAB", help=LAB_HELP)


def number_from(least: int) -> Callable[[str], int]:
    """The `type` of an argument that is a number of things."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} on")
        return int(text)

    return number


def json_option(parser: argparse.ArgumentParser, text: str = "print JSON instead of text") -> None:
    parser.add_argument("--json", action="store_true", help=text)


def json_errors_option(parser: argparse.ArgumentParser) -> None:
    """--json of a verb whose output is that of another program."""
    json_option(parser, "print errors of pycni itself as JSON")


def _add_life(verbs: Any) -> None:
    up = verbs.add_parser("up", help="make the lab of a file, or change the one that is up into it")
    up.add_argument("file", metavar="FILE", help="the lab in YAML or JSON (see `pycni lab schema`); -: stdin")
    up.add_argument("--name", metavar="NAME", help="another name than the file's: the same lab twice")
    up.add_argument("--dry-run", action="store_true", help="only show what would be done")
    up.add_argument("--quiet", action="store_true", help="no line for each thing that is done")
    json_option(up)
    down = verbs.add_parser("down", help="take a lab down, whatever state it is in")
    down.add_argument("lab", metavar="LAB", nargs="?", help=LAB_HELP)
    down.add_argument("--all", action="store_true", help="every lab of this machine")
    json_option(down)


def _add_looks(verbs: Any) -> None:
    ps = verbs.add_parser("ps", aliases=["ls", "list"], help="hosts, containers, addresses, networks, what runs")
    ps.set_defaults(lab_command="ps")  # whichever word was typed
    ps.add_argument("lab", metavar="LAB", nargs="?", help="only this lab: its name or its file")
    json_option(ps)
    inspect = verbs.add_parser("inspect", help="everything that is known of a lab, as JSON")
    inspect.add_argument("lab", metavar="LAB", nargs="?", help=LAB_HELP)
    json_option(inspect)
    logs = verbs.add_parser("logs", help="what an agent, a member of etcd or a container's command wrote")
    logs.add_argument("of", metavar="HOST|ETCD|HOST/CONTAINER", help="whose: h1, etcd1, h1/web")
    logs.add_argument("-n", "--lines", metavar="N", type=number_from(0), help="only the last N lines of what there is")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it grows, until Ctrl-C")
    lab_option(logs)
    json_option(logs, "print each piece as a line of JSON")
    save = verbs.add_parser("save", help="all there is to know of a lab in one archive, for a report of a bug")
    save.add_argument("lab", metavar="LAB", nargs="?", help=LAB_HELP)
    save.add_argument("-o", "--output", metavar="FILE", help="the archive (NAME.tar.gz); -: stdout")
    json_option(save)
    json_option(verbs.add_parser("schema", help="print the JSON schema of lab files"))


def _add_programs(verbs: Any) -> None:
    run = verbs.add_parser("exec", help="run a program on a host or in a container; its exit code is passed on")
    run.add_argument("where", metavar="HOST[/CONTAINER]", help="h1, or h1/web")
    lab_option(run)
    json_errors_option(run)
    run.add_argument("argv", metavar="-- COMMAND", nargs=argparse.REMAINDER, help="the program and its arguments")
    shell = verbs.add_parser("shell", help="a shell on a host or in a container")
    shell.add_argument("where", metavar="HOST[/CONTAINER]", help="h1, or h1/web")
    lab_option(shell)
    json_errors_option(shell)
    verbs.add_parser("attach")  # what a lab runs on each of its hosts: without help it is not listed
