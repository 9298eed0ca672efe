"""Every statement of ADD and DEL searches an index: none reads a table through, whatever its size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pycni.cni.names import Attachment
from pycni.ipam import plugin
from pycni.store import Record, Store
from tests.unit.ipam_calls import call, netconf


class Recording(Store):
    """A store that keeps the statements it is given."""

    statements: set[str]

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self.statements.add(sql)
        return super().query(sql, values)

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        self.statements.add(sql)
        return super().run(sql, values)

    def count_steps(self, work: Callable[[], object]) -> int:
        """How many instructions SQLite's machine takes for *work*: the same on every run and every computer."""
        steps = [0]

        def step() -> int:
            steps[0] += 1
            return 0

        self._connection.set_progress_handler(step, 1)
        work()
        self._connection.set_progress_handler(None, 1)
        return steps[0]

    def plan(self, sql: str) -> list[str]:
        markers = max(sql.count("?"), 4)
        return [row[3] for row in super().query(f"EXPLAIN QUERY PLAN {sql}", (0,) * parameters(sql, markers))]


def is_slow(step: str) -> bool:
    """Reads a table, an index or a pool from end to end, or sorts."""
    whole_pool = step.endswith("(pool=?)")  # an index search by name, and yet all leases of the network
    return whole_pool or (step.startswith("SCAN") and step != "SCAN CONSTANT ROW") or "TEMP B-TREE" in step


def parameters(sql: str, most: int) -> int:
    """How many values *sql* takes: `?` each, or the highest `?N`."""
    numbered = [number for number in range(1, most + 1) if f"?{number}" in sql]
    return max(numbered) if numbered else sql.count("?")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Recording]:
    with Recording.opened(str(tmp_path / "pycni.db")) as opened:
        opened.statements = set()
        yield opened


def test_add_and_delete_search_indexes(store: Recording) -> None:
    """First ADD, never used, requested, former and longest rested address; DEL; the attachment's record."""
    conf = netconf({"ranges": [[{"subnet": "10.9.0.0/29"}], [{"subnet": "fd00::/125"}]]})
    for name in "abcde":
        plugin.add(call(name), conf, store)
    for name in "abc":
        plugin.delete(call(name, command="DEL"), conf, store)
    plugin.add(call("b"), conf, store)
    plugin.add(call("new"), conf, store)
    plugin.delete(call("b", command="DEL"), conf, store)
    plugin.add(call("wants", args="IP=10.9.0.3"), conf, store)
    plugin.check(call("wants", command="CHECK"), conf, store)
    attachment = Attachment("net1", "a", "eth0")
    record = Record(attachment, "bridge")
    store.attachments.begin(record)
    store.attachments.update(record)
    store.attachments.commit(attachment, "{}")
    store.attachments.shares_rules(record)
    store.attachments.remove(record)

    searched = [sql for sql in store.statements if sql.split()[0] in ("SELECT", "UPDATE", "DELETE", "INSERT")]
    plans = {sql: store.plan(sql) for sql in searched}
    assert len(searched) > 15
    assert {sql: plan for sql, plan in plans.items() if any(map(is_slow, plan))} == {}


def test_the_cost_does_not_grow_with_the_leases(store: Recording) -> None:
    """ADD and DEL beside 3000 leases and 1000 released ones take the instructions that they take beside 30 and 10."""
    conf = netconf({"ranges": [[{"subnet": "10.0.0.0/16"}], [{"subnet": "fd00::/64"}]]})
    costs = []
    for upto in (40, 4000):
        with store.transaction():
            for at in range(upto // 100, upto):
                plugin.add(call(f"c{upto}-{at}"), conf, store)
            for at in range(upto // 100, upto, 4):
                plugin.delete(call(f"c{upto}-{at}", command="DEL"), conf, store)
        added = store.count_steps(lambda: plugin.add(call("one"), conf, store))
        deleted = store.count_steps(lambda: plugin.delete(call("one", command="DEL"), conf, store))
        again = store.count_steps(lambda: plugin.add(call("one"), conf, store))
        plugin.delete(call("one", command="DEL"), conf, store)
        costs.append((added, deleted, again))
    few, many = costs
    assert all(many[at] <= few[at] + 40 for at in range(3)), costs
