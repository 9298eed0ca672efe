"""Hosts of a cluster that nothing is heard of: told when they are, and, when their time has come, declared dead and
freed (pycni.etcd.nodes, barrier)."""

from __future__ import annotations

import time
from collections.abc import Callable

from pycni.cni.errors import CniError
from pycni.etcd.barrier import Memory
from pycni.etcd.client import Client
from pycni.etcd.nodes import Cared, care_for_the_dead
from pycni.etcd.schema import Keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.etcd.nodes import Copy

LOOK_S = 5.0  # between looks


class Absent:
    """As host *node*, for people *name*, sees them. found: at the last look."""

    def __init__(
        self, client: Client, keys: Keys, mirror: Copy, *, node: str, name: str, note: Callable[..., None]
    ) -> None:
        self.found = Cared()
        self._client = client
        self._keys = keys
        self._mirror = mirror
        self._node = node
        self._name = name
        self._note = note
        self._failure = ""

    def look(self, dead_after_s: float) -> float:
        """Look once; after how many seconds to look again. dead_after_s 0: nobody is declared dead."""
        before = self.found
        who = {"node": self._node, "name": self._name}
        try:
            self.found = care_for_the_dead(
                self._client,
                self._keys,
                self._mirror,
                before,
                **who,
                now=time.monotonic(),
                dead_after_s=dead_after_s,
            )
            self._failure = ""
        except CniError as failure:
            self.found = before.replace(memory=Memory(), declared=(), freed={})
            if str(failure) != self._failure:  # a host may not be permitted to, for ever
                self._failure = str(failure)
                self._note("warning", "overlay-unsaid", msg=self._failure)
        self._tell(before, self.found)
        return min(LOOK_S, dead_after_s / 4) if dead_after_s else LOOK_S

    def _tell(self, before: Cared, now: Cared) -> None:
        for node in now.suspects.keys() - before.suspects.keys():
            self._note("warning", "overlay-suspect", node=node)
        for node in before.suspects.keys() - now.suspects.keys():
            if node in now.alive:  # not declared dead, by whomever, nor taken out of the cluster
                self._note("info", "overlay-no-suspect", node=node)
        for node in now.declared:
            self._note("warning", "overlay-dead", node=node)
        for node, count in now.freed.items():
            self._note("warning", "overlay-freed", node=node, count=count)
        for node, obstacles in now.waits.items():
            if node not in before.waits:
                msg = "; ".join(f"{each.node} {each.why}" for each in obstacles)
                self._note("warning", "overlay-waits", node=node, msg=msg)
        for node, words in now.left.items():
            if node not in before.left:
                self._note("warning", "overlay-left", node=node, msg="; ".join(words))
