"""A trace as text, from what it says as JSON: also of one that was made on another host."""

from __future__ import annotations

import sys
from typing import Any

from pycni.cli.tables import paint, print_table, render_facts, width_of
from pycni.cli.trace.facts import HERE, HOST, OUTSIDE
from pycni.cli.trace.steps import NOTE

Told = dict[str, Any]


def print_way(told: Told) -> None:
    """Both ends, the steps, and what to do about notes."""
    about = f" {told['proto']}" + (f" port {told['port']}" if told["port"] else "")
    print(f"{_shown(told['source'])} → {_shown(told['target'])},{about}")
    if told["tunnel"]:
        tunnel = told["tunnel"]
        print(f"network {tunnel['network']}, {tunnel['mode']}, VNI {tunnel['vni']}; this is host {told['host']}")
    print()
    columns = ("result", "where", "what", "found")
    print_table(("", "WHERE", "WHAT", "FOUND"), [[step[column] for column in columns] for step in told["steps"]])
    for step in told["steps"]:
        if step["result"] == NOTE and step["action"]:
            print(f"\n{paint('note:', 'yellow', sys.stdout)} {step['what']}: {step['found']}")
            _print_action(step)


def print_outcome(told: Told) -> None:
    """What is missing, or where the rest of the way is to be looked at."""
    missing, other = told["missing"], told["otherHalf"]
    if missing:
        found = f"{missing['what']} on {missing['where']}: {missing['found']}"
        print(f"\n{paint('missing:', 'red', sys.stdout)} {found}")
        _print_action(missing)
        return
    print("\nnothing is missing" + (" on this host" if other else ""))
    if other:
        print(f"the other half: {other}")


def _print_action(step: Told) -> None:
    for line in render_facts([("do", step["action"])], width=width_of(sys.stdout)):
        print(line)


def _shown(end: Told) -> str:
    address = end["address"]
    if end["place"] == HOST:
        return f"{address} (this host itself)"
    host = end["host"] or end["node"]
    if end["place"] == OUTSIDE:
        return f"{address} ({f'on host {host}' if host else NOBODY})"
    where = "this host" if end["place"] == HERE else f"host {host}"
    name = f"{end['network']}/{end['container']}/{end['ifname']}" if end["container"] else end["network"]
    return f"{name} {address} ({where})"


NOBODY = "no container that is known"
