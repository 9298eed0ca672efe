"""The parser looked at by those who make texts from it: its commands, their options, and what may stand where."""

from __future__ import annotations

import argparse

NAMES = ("network", "namespace", "container", "lab", "host", "place")  # what `pycni completion SHELL --names` tells
FILE, DIRECTORY = "file", "directory"

_BY_DEST = {"network": "network", "hosts": "host", "parties": "host", "names": "host", "what": "host"}
_BY_METAVAR = {
    **dict.fromkeys(("FILE", "FILE.svg", "SCENARIO.yaml", "PATH", "-- COMMAND"), FILE),
    "DIR": DIRECTORY,
    "NETNS": "namespace",
    **dict.fromkeys(("NETNS|CONTAINER", "SRC", "DST", "ID[/IFNAME]"), "container"),
    "LAB": "lab",
    "LINK": "host",
    **dict.fromkeys(("HOST[/CONTAINER]", "HOST|ETCD|HOST/CONTAINER", "TARGET"), "place"),
}


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands below *parser*, by name; without aliases, and without those that only pycni itself runs."""
    below = _below(parser)
    return {name: below.choices[name] for name in helps(parser)} if below is not None else {}


def aliases(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """The other names of each command below *parser* that has some."""
    below = _below(parser)
    if below is None:
        return {}
    found = {
        name: [other for other, same in below.choices.items() if same is one and other != name]
        for name, one in subcommands(parser).items()
    }
    return {name: others for name, others in found.items() if others}


def helps(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The one-line help of each command below *parser*."""
    below = _below(parser)
    return {choice.dest: choice.help or "" for choice in below._choices_actions} if below is not None else {}


def _below(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    return next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options of *parser* that have a help, without its positional arguments."""
    return [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]


def positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The positional arguments of *parser*, without its commands."""
    return [a for a in parser._actions if not a.option_strings and not isinstance(a, argparse._SubParsersAction)]


def paths(
    parser: argparse.ArgumentParser, prefix: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command with its words: ((), parser), (("add",), …), (("ipam", "list"), …)."""
    found = [(prefix, parser)]
    for name, child in subcommands(parser).items():
        found += paths(child, (*prefix, name))
    return found


def plain_help(action: argparse.Action) -> str:
    """The help as people read it."""
    return (action.help or "").replace("%%", "%")


def several(action: argparse.Action) -> bool:
    """Whether all further words belong to this positional argument."""
    return action.nargs in ("+", "*", argparse.REMAINDER)


def offered(action: argparse.Action) -> str:
    """What completion offers for the value of an option or a positional argument that has no choices: one of `NAMES`,
    FILE, DIRECTORY, or "" for what nobody can know."""
    return _BY_DEST.get(action.dest) or _BY_METAVAR.get(str(action.metavar), "")
