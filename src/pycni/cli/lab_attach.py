"""`pycni lab attach`: what a lab runs on each of its hosts to make containers' namespaces and attach them.

Jobs come as JSON lines (`pycni.lab.attaching.job`), each is answered by a line. It is a runtime like `pycni add`, for
many containers in one process; the plugins' executables are the real ones.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from pycni.cli.cache import DEFAULT_CACHE_DIR
from pycni.cli.failure import OK, Failure
from pycni.cli.networks import DEFAULT_CONF_DIR, NetworkList, find_network
from pycni.cli.runtime import DEFAULT_PLUGIN_DIRS, Runtime, Target
from pycni.cni.errors import CniError, Code
from pycni.host import messages, program, rtnl
from pycni.host.netns import open_netns

Job = Mapping[str, Any]

TRY_AGAIN_S, PAUSE_S = 60.0, 0.2


def attach(given: Namespace) -> int:
    """Carry out the jobs of standard input in order; one that fails is answered with "error", and the next is done."""
    jobs = [json.loads(line) for line in sys.stdin]
    directories = (
        os.environ.get("CNI_PATH", "").split(os.pathsep) if os.environ.get("CNI_PATH") else DEFAULT_PLUGIN_DIRS
    )
    runtime = Runtime(directories, DEFAULT_CACHE_DIR)
    began = time.monotonic()
    _make_namespaces(runtime, [job for job in jobs if job["verb"] == "add"])
    for job in jobs:
        answer: dict[str, Any] = {"container": job["container"]}
        try:
            answer["attachments"] = _attach(runtime, job) if job["verb"] == "add" else _detach(runtime, job)
        except (Failure, CniError, OSError) as failure:
            answer["error"] = _words(failure)
        answer["seconds"] = round(time.monotonic() - began, 4)
        began = time.monotonic()
        print(json.dumps(answer), flush=True)
    return OK


def _make_namespaces(runtime: Runtime, jobs: Sequence[Job]) -> None:
    for job in jobs:
        if os.path.exists(job["netns"]):  # of a call that was killed: its attachments are nobody's
            _detach(runtime, job)
    _ip([f"netns add {os.path.basename(job['netns'])}" for job in jobs])
    for job in jobs:
        fd = open_netns(job["netns"])
        try:
            with rtnl.in_namespace(fd) as inside:
                inside.request(messages.set_link("lo", up=True))
        finally:
            os.close(fd)


def _attach(runtime: Runtime, job: Job) -> list[dict[str, Any]]:
    done: list[dict[str, Any]] = []
    try:
        for asked in job["attachments"]:
            network = find_network(asked["network"], DEFAULT_CONF_DIR)
            target = _target(job, asked)
            done.append(_told(asked, _add(runtime, network, target)))
    except BaseException:
        _detach(runtime, {**job, "attachments": done})
        raise
    return done


def _add(runtime: Runtime, network: NetworkList, target: Target) -> dict[str, Any]:
    """ADD; "try again later" is tried again, as runtimes do: a host that was rebooted waits for its own old lease."""
    end = time.monotonic() + TRY_AGAIN_S
    while True:
        try:
            return runtime.add(network, target)
        except Failure as failure:
            if failure.code != Code.TRY_AGAIN or time.monotonic() > end:
                raise
        time.sleep(PAUSE_S)


def _target(job: Job, asked: Mapping[str, Any]) -> Target:
    return Target(
        container_id=job["container"],
        netns=job["netns"],
        ifname=asked["ifname"],
        capability_args=asked.get("capabilityArgs", {}),
    )


def _told(asked: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    interfaces = [
        each for each in result.get("interfaces", ()) if each.get("name") == asked["ifname"] and each.get("sandbox")
    ]
    return {
        "network": asked["network"],
        "ifname": asked["ifname"],
        "addresses": [each["address"] for each in result.get("ips", ())],
        "mac": interfaces[0].get("mac", "") if interfaces else "",
    }


def _detach(runtime: Runtime, job: Job) -> list[dict[str, Any]]:
    """DEL of every interface, newest first, whatever the others say; then the namespace goes."""
    failures = []
    for asked in reversed(job["attachments"]):
        try:
            runtime.delete(find_network(asked["network"], DEFAULT_CONF_DIR), _target(job, asked))
        except (Failure, CniError, OSError) as failure:
            failures.append(f"{asked['network']}: {_words(failure)}")
    if os.path.exists(job["netns"]):
        _ip([f"netns del {os.path.basename(job['netns'])}"])
    if failures:
        raise Failure("; ".join(failures))
    return []


def _ip(lines: Sequence[str]) -> None:
    if not lines:
        return
    path = program.find("ip")
    if path is None:
        raise Failure("ip (iproute2) is not installed")
    status, _, said = program.run([path, "-batch", "-"], "\n".join(lines) + "\n")
    if status:
        raise Failure(f"ip cannot change the namespaces: {said.strip()}")


def _words(failure: Exception) -> str:
    if isinstance(failure, Failure):
        where = ", ".join(f"{label} {text}" for label, text in failure.facts)
        return " ".join(part for part in (failure.message, failure.details, f"({where})" if where else "") if part)
    return str(failure)


HANDLERS = {"attach": attach}
