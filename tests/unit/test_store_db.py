"""The state file: opening, transactions, killed writers, damage."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment
from pycni.firewall.rules import NetworkRules
from pycni.store import Lease, Record, Store, open_store
from pycni.store.boot import boot_id, own_process, process_alive
from pycni.store.schema import SCHEMA_VERSION, STEPS

SOURCES = str(Path(__file__).parents[2] / "src")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "pycni.db")


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    with open_store(path) as opened:
        yield opened


def networks(store: Store) -> list[str]:
    return [name for (name,) in store.query("SELECT network FROM pools ORDER BY network")]


def fail_after(store: Store, network: str) -> None:
    """A transaction that fails after one inside it has ended well."""
    with store.transaction():
        with store.transaction():
            store.leases.make_pool("d", network)
        raise KeyError(network)


def pretend_reboot(path: str) -> None:
    Path(f"{path}.lock").write_text("0" * 36)


def test_the_directory_is_for_root_only(store: Store, path: str) -> None:
    """Made with mode 0700: configurations and leases are nobody else's business."""
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700


def test_a_failed_transaction_changes_nothing(store: Store) -> None:
    """And the next one works."""
    with pytest.raises(KeyError):
        fail_after(store, "one")
    with store.transaction():
        store.leases.make_pool("d", "two")
    assert networks(store) == ["two"]


def test_an_inner_transaction_takes_back_its_own_part(store: Store) -> None:
    """The outer one goes on; if that fails, all is taken back."""
    with store.transaction():
        store.leases.make_pool("d", "outer")
        with pytest.raises(KeyError):
            fail_after(store, "inner")
        with store.transaction():
            store.leases.make_pool("d", "second")
        assert store.in_transaction
    assert networks(store) == ["outer", "second"]
    with pytest.raises(KeyError):
        fail_after(store, "third")
    assert networks(store) == ["outer", "second"]


def test_close_takes_back_what_is_open(path: str) -> None:
    """As when the process dies."""
    with open_store(path) as store:
        store.transaction().__enter__()
        store.leases.make_pool("d", "x")
    with open_store(path) as store:
        assert networks(store) == []


def test_what_sqlite_reports_is_a_cni_error(store: Store) -> None:
    """Code 5 with the path of the file; text that is no Unicode is the config's fault."""
    with pytest.raises(CniError, match="no such table: x") as caught:
        store.query("SELECT * FROM x")
    assert caught.value.code == Code.IO
    assert caught.value.msg.startswith(store.path)
    with pytest.raises(CniError) as caught:
        store.query("SELECT ?", ("\udcff",))
    assert caught.value.code == Code.INVALID_CONFIG


def test_a_newer_format_is_refused(path: str) -> None:
    """Instead of being misread."""
    with open_store(path) as store, store.transaction():
        store.run("PRAGMA user_version=99")
    with pytest.raises(CniError, match=f"has format 99 and this pycni writes format {SCHEMA_VERSION}"):
        open_store(path)


def test_a_file_of_an_older_format_takes_the_steps_it_lacks(path: str) -> None:
    """What the first format recorded is still there afterwards, as the records of the plugins that make links."""
    os.makedirs(os.path.dirname(path))
    with contextlib.closing(sqlite3.connect(path)) as old, old:
        for statement in STEPS[0]:
            old.execute(statement)
        old.execute("PRAGMA user_version=1")
        columns = [name for _, name, *_ in old.execute("PRAGMA table_info(attachments)")]
        texts = {"network": "net", "container_id": "c1", "ifname": "eth0", "plugin": "bridge", "state": "ready"}
        texts |= dict.fromkeys(("host_links", "addresses", "cni_path"), "[]")
        texts |= {"network_rules": '{"network": "net"}', "attachment_rules": '{"owner": "net/c1/eth0"}'}
        row = [texts.get(name, 0 if name in ("pid", "pid_start", "created") else "") for name in columns]
        old.execute(f"INSERT INTO attachments VALUES ({', '.join('?' * len(row))})", row)
    with open_store(path) as store:
        (record,) = store.attachments.all()
        assert record.attachment == Attachment("net", "c1", "eth0", "")
        assert (record.plugin, record.state) == ("bridge", "ready")
        assert store.query("PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_the_parts_of_an_attachment_are_records_of_their_own(store: Store) -> None:
    """Each is found, counted and removed by itself; all of them keep the host's shared things in use."""
    link, ports = Attachment("net", "c1", "eth0"), Attachment("net", "c1", "eth0", "portmap")
    records = store.attachments
    records.begin(Record(link, "bridge"))
    records.begin(Record(ports, "portmap"))
    assert [record.plugin for record in records.all("net")] == ["bridge", "portmap"]
    assert [record.plugin for record in records.all(part="portmap")] == ["portmap"]
    assert not records.shares_rules(Record(link, "bridge"))
    assert not records.shares_rules(Record(ports, "portmap"))
    assert records.has_others_on_host(link)
    records.begin(Record(Attachment("net", "c0", "eth0", "portmap"), "portmap"))
    assert records.shares_rules(Record(ports, "portmap"))
    assert not records.shares_rules(Record(link, "bridge"))
    assert not records.shares_rules(Record(ports, "portmap", network_rules=NetworkRules("net", passing=("veth1",))))
    found = records.get(link)
    assert found is not None
    assert records.remove(found)
    assert records.get(link) is None
    assert records.get(ports) is not None


def test_a_directory_that_cannot_be_made_is_told_with_the_path(tmp_path: Path) -> None:
    """As every file that cannot be used: code 5."""
    (tmp_path / "file").touch()
    with pytest.raises(CniError, match=r"/state/pycni\.db cannot be used: Not a directory") as caught:
        open_store(str(tmp_path / "file" / "state" / "pycni.db"))
    assert caught.value.code == Code.IO


@pytest.mark.parametrize("damage", ["cut", "overwritten", "garbage", "empty", "index"])
def test_a_damaged_file_is_moved_aside_after_a_boot(path: str, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever a power loss left: cut short, old or zeroed pages, an index that does not fit its table."""
    with open_store(path) as store, store.transaction():
        pool = store.leases.make_pool("d", "before")
        for at in range(2000):
            pool.put(Lease(ip_address("10.0.0.0") + at, f"c{at}", "eth0", "10.0.0.0/8"))
        if damage == "index":
            store.run("PRAGMA writable_schema=ON")
            store.run("UPDATE sqlite_schema SET sql = replace(sql, 'ifname)', 'netns)') WHERE name = 'leases_by_owner'")
    content = bytearray(Path(path).read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "overwritten":
        content[8192 : 8192 + 40960] = bytes(40960)
    elif damage == "garbage":
        content = bytearray(b"rubbish" * 1000)
    elif damage == "empty":
        content = bytearray()
    Path(path).write_bytes(content)
    pretend_reboot(path)
    with open_store(path) as store:
        assert networks(store) == []
        with store.transaction():
            store.leases.make_pool("d", "after")
    assert f"{path} is damaged" in capfd.readouterr().err
    assert Path(f"{path}.damaged").read_bytes() == bytes(content)
    with open_store(path) as store:
        assert networks(store) == ["after"]


def test_a_sound_file_survives_the_boot(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    """History is kept: addresses go on resting, containers find theirs again."""
    with open_store(path) as store, store.transaction():
        store.leases.make_pool("d", "before")
    pretend_reboot(path)
    with open_store(path) as store:
        assert networks(store) == ["before"]
    assert capfd.readouterr().err == ""
    assert Path(f"{path}.lock").read_text() == boot_id()


def test_damage_within_a_boot_is_reported_and_left_alone(path: str) -> None:
    """The leases in it are those of running containers: whether they go is not ours to decide."""
    open_store(path).close()
    Path(path).write_bytes(b"rubbish" * 1000)
    with pytest.raises(CniError, match="was damaged since the machine booted") as caught:
        open_store(path)
    assert caught.value.code == Code.IO
    assert Path(path).exists()


def test_a_removed_file_is_made_anew(path: str) -> None:
    """The lock file beside it may have stayed."""
    open_store(path).close()
    os.unlink(path)
    with open_store(path) as store:
        assert networks(store) == []


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from ipaddress import ip_address
from pycni.store import Lease, open_store
number = int(sys.argv[3]) * 100000
while True:
    with open_store(sys.argv[2]) as store:
        with store.transaction():
            pool = store.leases.pool("d", "n") or store.leases.make_pool("d", "n")
            pool.put(Lease(ip_address("10.0.0.0") + number, f"c{number}", "eth0", "10.0.0.0/8"))
        print(number, flush=True)
    number += 1
"""


def test_killed_writers_lose_nothing(path: str) -> None:
    """kill -9 of whole processes at any moment: what was acknowledged is there, at most one more, the file is sound."""
    acknowledged = 0
    for at in range(12):
        command = [sys.executable, "-ISE", "-c", WRITER, SOURCES, path, str(at)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            written = [writer.stdout.readline() for _ in range(1 + at * 3)]
            writer.send_signal(signal.SIGKILL)
            written += writer.stdout.readlines()
        acknowledged += sum(line.endswith("\n") for line in written)
        with open_store(path) as store:
            assert acknowledged <= len(store.leases.all()) <= acknowledged + 1
            acknowledged = len(store.leases.all())
            assert store.query("PRAGMA integrity_check") == [("ok",)]


def test_processes_are_told_apart_by_their_start() -> None:
    """Pid and start time; a zombie is dead."""
    assert process_alive(*own_process())
    assert not process_alive(own_process()[0], own_process()[1] + 1)
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        start = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        assert not process_alive(child.pid, start)
    assert not process_alive(child.pid, start)
