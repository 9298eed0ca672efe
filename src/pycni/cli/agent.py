"""`pycni agent`, `pycni agent status` and `pycni reconcile`."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from pycni.agent.config import DEFAULT_PATH, AgentConfig, check_socket, load_config
from pycni.cli.agent_client import SOCKET_VARIABLE, ask
from pycni.cli.failure import CODE_NAMES, FAILED, OK, USAGE, Failure
from pycni.cli.tables import age, counted, print_table, render_facts


def run(given: Namespace) -> int:
    """`pycni agent`: its second word decides; without one, be the agent."""
    return {None: serve, "status": status}[given.agent_command](given)


def serve(given: Namespace) -> int:
    """Be the agent until SIGTERM or Ctrl-C."""
    from pycni.agent.main import run as run_agent  # asyncio and the plugins: `status` needs none of it

    if given.json:
        raise Failure("--json belongs to `pycni agent status`; the agent's log is JSON anyway", exit_code=USAGE)
    if os.geteuid() != 0:
        raise Failure("the agent changes the host's network: only root can run it", next_step="run the command as root")
    socket = given.socket or os.environ.get(SOCKET_VARIABLE)
    if socket:
        check_socket(socket, "--socket")

    def load() -> AgentConfig:
        config = load_config(given.config or DEFAULT_PATH, required=bool(given.config))
        return config.replace(socket=socket) if socket else config

    run_agent(load)
    return OK


# -- status ------------------------------------------------------------------------------------------------------------

STATUS_S = 10.0  # an agent that takes longer is stopped or stuck, which is the answer


def status(given: Namespace) -> int:
    """What the agent is and has done."""
    said = ask("status", given.socket, timeout_s=STATUS_S)
    if given.json:
        print(json.dumps(said, indent=4))
        return OK
    now = time.time()
    print(f"agent {said['version']}, pid {said['pid']}, at {said['socket']}")
    for line in render_facts(list(_facts(said, now))):
        print(line)
    if said["calls"]:
        print()
        rows = [_call_row(call) for call in said["calls"]]
        print_table(("PLUGIN", "COMMAND", "OUTCOME", "CALLS", "MEAN MS"), rows, right=("CALLS", "MEAN MS"))
    return OK


def _facts(said: Mapping[str, Any], now: float) -> Iterator[tuple[str, str]]:
    config = said["config"]
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(said["started"]))
    yield "since", f"{begun} ({age(now - said['started'])})"
    yield "clients", f"{said['clients']} of {config['connections']}"
    yield "calls now", f"{said['busy']}, {config['workers']} at the same time"
    yield "memory", f"{said['memory_bytes'] / 2**20:.1f} MiB, {counted(said['descriptors'], 'descriptor')}"
    yield "ports", _ports(said)
    for prefix, cluster in said["overlay"].items():
        yield "overlay", f"{prefix}: {_cluster(cluster)}"
    yield "readers", f"group {config['readers']}" if config["readers"] else "root only"
    yield "metrics", config["metrics"] or "off"
    last = said["reconciled"]
    if last is None:
        yield "reconciled", "not yet"
        return
    yield "reconciled", f"{age(now - last['at'])} ago in {last['ms']:.1f} ms: {_summary(last)}"
    yield from _findings(last)


def _ports(said: Mapping[str, Any]) -> str:
    ports, proxy = said["ports"], said["proxy"]
    restarts = f", {counted(proxy['restarts'], 'restart')}" if proxy["restarts"] else ""
    serving = f"proxy pid {proxy['pid']}{restarts}" if proxy["pid"] else "no proxy"
    return f"{ports['held']} held, {ports['proxied']} by the proxy ({serving})" if ports["held"] else "none held"


def _cluster(cluster: Mapping[str, Any]) -> str:
    networks = cluster["networks"].values()
    peers = sum(network["peers"] for network in networks)
    words = [counted(len(networks), "network"), counted(peers, "peer")]
    behind = sum(not network["in_step"] for network in networks)
    words.append(f"{behind} not in step" if behind else "in step")
    if cluster["suspects"]:
        words.append(counted(cluster["suspects"], "suspect host"))
    if cluster["stale_s"]:
        words.append(f"etcd silent for {age(cluster['stale_s'])}")
    elif not cluster["lease"]:
        words.append("not admitted")
    return ", ".join(words)


def _call_row(call: Mapping[str, Any]) -> tuple[str, ...]:
    code = call["code"]
    outcome = "ok" if code == 0 else f"{code} ({CODE_NAMES.get(code, 'of the plugin')})"
    mean_ms = f"{call['seconds'] / call['count'] * 1000:.2f}"
    return call["plugin"], call["command"], outcome, str(call["count"]), mean_ms


# -- reconcile ---------------------------------------------------------------------------------------------------------

_FINDINGS = ("restored", "released", "foreign", "failures")


def reconcile(given: Namespace) -> int:
    """Have the agent compare its records with the kernel now; exit code 1 where something could not be put right."""
    last = ask("reconcile", given.socket)
    if given.json:
        print(json.dumps(last, indent=4))
    else:
        print(f"{_summary(last)}, in {last['ms']:.1f} ms")
        for line in render_facts(list(_findings(last))):
            print(line)
    return FAILED if last["failures"] else OK


def _summary(last: Mapping[str, Any]) -> str:
    words = {"restored": "restored", "released": "released", "foreign": "changed by others", "failures": "failed"}
    done = [f"{len(last[key])} {words[key]}" for key in _FINDINGS if last[key]]
    return f"{counted(last['attachments'], 'attachment')}, {', '.join(done) or 'all in order'}"


def _findings(last: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in _FINDINGS:
        if last[key]:
            yield key, "\n".join(last[key])


HANDLERS = {"agent": run, "reconcile": reconcile}
