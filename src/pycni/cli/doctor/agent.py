"""The agent: whether one runs, of which version, and whether it could do its work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from pycni import __version__
from pycni.cli.agent_client import NoAgent, ask, socket_path
from pycni.cli.doctor.finding import FAIL, OK, WARN, Finding
from pycni.cli.failure import Failure
from pycni.cli.tables import age

CHECK = "agent"
DEADLINE_S = 5.0
TRY_AGAIN = 11


def check() -> Iterator[Finding]:
    """Its own account of itself."""
    try:
        said = ask("status", timeout_s=DEADLINE_S)
    except NoAgent as failure:
        yield _absent(failure)
        return
    except Failure as failure:
        if failure.code != TRY_AGAIN:
            raise
        yield Finding(
            level=FAIL,
            check=CHECK,
            found=f"{failure.message}: {failure.details}",
            meaning="every call of a plugin waits for it, and fails in the end",
            action="systemctl restart pycni-agent, or end the agent: calls then do without it",
        )
        return
    problems = [*_other_version(said["version"]), *_failed(said["reconciled"])]
    yield from problems
    if not problems:
        found = f"version {said['version']}, for {age(time.time() - said['started'])}, at {said['socket']}"
        yield Finding(level=OK, check=CHECK, found=found)


def _absent(failure: NoAgent) -> Finding:
    if not os.path.exists(socket_path()):
        return Finding(level=OK, check=CHECK, found="none runs: each call is a process of its own")
    return Finding(
        level=WARN,
        check=CHECK,
        found=f"{failure.message}, but its socket is there",
        meaning="it was killed: calls do without it, and nothing restores a flushed firewall",
        action="systemctl restart pycni-agent.socket pycni-agent.service, or pycni agent",
    )


def _other_version(version: str) -> Iterator[Finding]:
    if version != __version__:
        yield Finding(
            level=WARN,
            check=CHECK,
            found=f"it is version {version}, installed is {__version__}",
            meaning="calls are answered by the old code",
            action="systemctl restart pycni-agent, or end the agent and start it anew",
        )


def _failed(last: dict[str, Any] | None) -> Iterator[Finding]:
    if last and last["failures"]:
        yield Finding(
            level=FAIL,
            check=CHECK,
            found=f"its last look at the host failed: {'; '.join(last['failures'])}",
            meaning="what others break is not put right, and dead containers keep their addresses",
            action="pycni reconcile, once the reason is gone",
        )
