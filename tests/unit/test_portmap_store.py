"""Host ports in the store: who has what, for how long, found by an index at any number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycni.change.claims import Claim
from pycni.cni.errors import CniError
from pycni.cni.names import Attachment
from pycni.store import Record, Store, host_ports
from tests.unit.test_portmap_plan import claims
from tests.unit.test_store_plans import Recording, is_slow


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Recording]:
    with Recording.opened(str(tmp_path / "pycni.db")) as opened:
        opened.statements = set()
        yield opened


def attachment(name: str, part: str = "portmap") -> Attachment:
    return Attachment("net", name, "eth0", part)


def take(store: Store, name: str, *wanted: Claim) -> Record:
    record = Record(attachment(name), "portmap")
    with store.transaction():
        store.attachments.begin(record)
        store.host_ports.take(record.attachment, wanted)
    return record


def tcp(low: int, high: int = 0, host_ip: str = "", family: int = 4) -> Claim:
    return Claim(family, "tcp", host_ip, low, high or low)


def test_ports_go_with_the_record(store: Recording) -> None:
    """By whatever way it goes; and those of the same container's other parts do not count."""
    record = take(store, "a", tcp(80), tcp(90, 99))
    store.attachments.begin(Record(attachment("a", ""), "bridge"))
    assert store.host_ports.holder(tcp(95)) == (tcp(90, 99), attachment("a"))
    assert store.host_ports.holder(tcp(95), besides=attachment("a")) is None
    with store.transaction():
        store.host_ports.keep(record.attachment, "cni1", "route_localnet", "0")
    store.attachments.remove(Record(attachment("a", ""), "bridge"))
    assert store.host_ports.of(attachment("a")) == (tcp(80), tcp(90, 99))
    store.attachments.remove(record)
    assert store.host_ports.all() == () and not store.host_ports.is_used("cni1", "route_localnet")


def test_failed_claim_leaves_what_was_there(store: Recording) -> None:
    """One transaction: an ADD that finds its last port taken has none of the others."""
    take(store, "a", tcp(80))
    with pytest.raises(CniError), store.transaction():
        store.host_ports.take(attachment("b"), [tcp(81), tcp(80)])
    assert store.host_ports.all() == ((tcp(80), attachment("a")),)


@settings(max_examples=60, deadline=None)
@given(st.lists(claims, max_size=25))
def test_holder_is_who_excludes(tmp_path_factory: pytest.TempPathFactory, wanted: list[Claim]) -> None:
    """Compared with a list: every claim that excludes none of the former is taken, for each other one a former is
    named that excludes it."""
    with Store.opened(str(tmp_path_factory.mktemp("store") / "pycni.db")) as store:
        have: list[Claim] = []
        for number, claim in enumerate(wanted):
            found = store.host_ports.holder(claim)
            if found is None:
                assert not any(one.excludes(claim) for one in have)
                take(store, f"c{number}", claim)
                have.append(claim)
            else:
                assert found[0] in have and found[0].excludes(claim)


def test_settings_remember_the_state_before_their_first_user(store: Recording) -> None:
    """Each user repeats it, until the last is gone."""
    first, second = take(store, "a").attachment, take(store, "b").attachment
    ports = store.host_ports
    assert ports.before("cni1", "x") is None
    with store.transaction():
        ports.keep(first, "cni1", "x", "0")
        ports.keep(second, "cni1", "x", ports.before("cni1", "x") or "")
        ports.give_up_settings(first)
    assert ports.is_used("cni1", "x") and ports.settings(second) == (("cni1", "x", "0"),)
    with store.transaction():
        ports.give_up_settings(second)
    assert not ports.is_used("cni1", "x") and ports.before("cni1", "x") is None


def test_chosen_ports_are_remembered_for_a_while(store: Recording) -> None:
    """The last ones, also of attachments that are gone."""
    owners = [attachment(f"c{number}") for number in range(host_ports.REMEMBERED + 5)]
    for number, owner in enumerate(owners):
        with store.transaction():
            store.host_ports.choose(owner, "tcp", 80, 40000 + number)
    assert store.host_ports.last_chosen() == 40000 + len(owners) - 1
    assert store.host_ports.chosen(owners[4], "tcp", 80) == 0
    assert store.host_ports.chosen(owners[5], "tcp", 80) == 40005
    assert store.host_ports.chosen(owners[5], "udp", 80) == 0


def work(store: Recording, name: str, port: int) -> None:
    """What one ADD and one DEL ask of these tables."""
    own, ports = attachment(name), store.host_ports
    assert ports.holder(tcp(port), besides=own) is None
    with store.transaction():
        store.attachments.begin(Record(own, "portmap"))
        ports.take(own, [tcp(port)])
        ports.keep(own, "cni1", "route_localnet", ports.before("cni1", "route_localnet") or "0")
        ports.choose(own, "tcp", 80, ports.last_chosen() + 1)
        ports.chosen(own, "tcp", 80)
    with store.transaction():
        ports.settings(own)
        ports.give_up_settings(own)
        ports.is_used("cni1", "route_localnet")
    store.attachments.remove(Record(own, "portmap"))


def test_statements_search_indexes_at_the_same_cost_at_any_number(store: Recording) -> None:
    """No table is read through; a thousand ports more cost no step more of SQLite's machine."""
    work(store, "x", 8080)
    for sql in store.statements:
        if sql.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
            assert not any(map(is_slow, store.plan(sql))), (sql, store.plan(sql))
    alone = store.count_steps(lambda: work(store, "x", 8080))
    with store.transaction():
        for number in range(1000):
            own = attachment(f"c{number}")
            store.attachments.begin(Record(own, "portmap"))
            store.host_ports.take(own, [tcp(20000 + number)])
            store.host_ports.keep(own, "cni1", "route_localnet", "0")
    crowded = store.count_steps(lambda: work(store, "x", 8080))
    assert crowded <= 1.1 * alone
