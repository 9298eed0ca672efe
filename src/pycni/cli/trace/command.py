"""`pycni trace SRC DST`: the way of a packet over what this host's kernel has, and the first thing that is missing."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from typing import Any

from pycni.agent.view import see_attachments
from pycni.cli.failure import FAILED, NOT_FOUND, OK, USAGE, Failure
from pycni.cli.state import existing_store
from pycni.cli.trace.cluster import Cluster
from pycni.cli.trace.ends import addresses_of, by_loopback, choose_both, find_end
from pycni.cli.trace.facts import ELSEWHERE, HERE, HOST, End, Packet, Path
from pycni.cli.trace.published import behind_port, packet_behind
from pycni.cli.trace.reading import Reader, is_own
from pycni.cli.trace.steps import Step, first_missing, until_missing
from pycni.cli.trace.telling import NOBODY, print_outcome, print_way
from pycni.cli.trace.walk import walk
from pycni.host.rtnl import Netlink
from pycni.plugins.overlay.site import all_joined
from pycni.store import STATE_DIR


def trace(given: Namespace) -> int:
    """Find both ends, read, walk, print. Exit code 1 where something is missing."""
    proto = given.proto or ("tcp" if given.port else "icmp")
    if given.port and proto == "icmp":
        raise Failure("icmp has no ports", exit_code=USAGE, next_step="leave --port out, or say --proto tcp or udp")
    if os.geteuid():
        raise Failure("a trace looks into containers", code=5, next_step="run the command as root")
    source, target, path = _read(given, proto)
    steps = list(until_missing(walk(path)))
    other = _other_half(given, source, target, path.packet, steps)
    told = _as_json(source, target, path, steps, other)
    if given.json:
        print(json.dumps(told, indent=4))
    else:
        print_way(told)
        print_outcome(told)
    return FAILED if first_missing(steps) is not None else OK


def _read(given: Namespace, proto: str) -> tuple[End, End, Path]:
    store = existing_store()
    if store is None:
        raise Failure("no plugin of pycni was ever called on this host", exit_code=NOT_FOUND)
    clusters = [Cluster(joined) for joined in all_joined(STATE_DIR)]
    with store, Netlink() as kernel:
        seen = see_attachments(store)
        texts = given.source, given.target
        found = [find_end(text, seen, clusters, lambda address: is_own(kernel, address)) for text in texts]
        source, asked = by_loopback(*choose_both(texts, (found[0], found[1]), clusters))
        target, port = behind_port(asked, seen, store, proto=proto, port=given.port or 0)
        _refuse_elsewhere(given, source[0], target[0])
        packet = Packet(*addresses_of(source[0], asked[0]), proto=proto, port=given.port or 0)
        if target is not asked:
            packet = packet_behind(packet, target[0], port)
        reader = Reader(kernel, store, packet, {cluster.joined.network: cluster for cluster in clusters})
        path = reader.path(source, target)
        ends = [_with_host(end, path) for end in (source[0], target[0])]
        if path.source is not None:
            ends[0] = path.source.end  # maybe another interface of that container
        return ends[0], ends[1], path


def _with_host(end: End, path: Path) -> End:
    return end.replace(host=path.far.name) if end.place == ELSEWHERE and path.far is not None else end


def _refuse_elsewhere(given: Namespace, source: End, target: End) -> None:
    """One of the two must be here."""
    ends = {given.source: source, given.target: target}
    if HERE in [end.place for end in ends.values()]:
        return
    elsewhere = any(end.place == ELSEWHERE for end in ends.values())
    raise Failure(
        f"neither {given.source} nor {given.target} is a container of this host",
        exit_code=NOT_FOUND,
        facts=[(text, _where(end)) for text, end in ends.items()],
        next_step="run the same command there; `pycni peers` shows which host has which id"
        if elsewhere
        else "one of the two must be one: `pycni list`",
    )


def _where(end: End) -> str:
    if end.place == HOST:
        return "this host itself"
    return f"on host {end.node}" if end.node else NOBODY


def _other_half(given: Namespace, source: End, target: End, packet: Packet, steps: list[Step]) -> str:
    """What to run where for the rest of the way. By addresses: a name may be another container's there."""
    far = next((end for end in (source, target) if end.place == ELSEWHERE), None)
    if far is None or first_missing(steps) is not None:
        return ""
    words = ["pycni", "trace", str(packet.source), str(packet.sent_to)]
    words += ["--port", str(given.port)] if given.port else []
    words += ["--proto", given.proto] if given.proto else []
    return f"on host {far.host or far.node}: {' '.join(words)}"


def _as_json(source: End, target: End, path: Path, steps: list[Step], other: str) -> dict[str, Any]:
    packet, missing, tunnel = path.packet, first_missing(steps), path.tunnel
    network = source.network or target.network
    return {
        "source": {**source.as_dict(), "address": str(packet.source)},
        "target": {**target.as_dict(), "address": str(packet.target)},
        "proto": packet.proto,
        "port": packet.port or None,
        "host": path.host.name,
        "tunnel": {"network": network, "mode": tunnel.mode, "vni": tunnel.vni} if tunnel is not None else None,
        "steps": [step.as_dict() for step in steps],
        "missing": missing.as_dict() if missing is not None else None,
        "leavesAs": _leaves_as(path),
        "otherHalf": other or None,
    }


def _leaves_as(path: Path) -> str | None:
    """The address that a packet to the world has from this host on; None for its own."""
    out, hop = path.host.out, path.source.next_hop if path.source is not None else None
    to_world = path.target is None and path.tunnel is None and not path.with_host and hop is not None and hop.gw
    return str(out.src) if to_world and path.host.masquerades and out is not None and out.src else None


HANDLERS = {"trace": trace}
