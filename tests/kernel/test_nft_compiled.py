"""A table made from what the kernel said of it is the table that nft made from text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_fixtures import Host
from pycni.firewall.nft_text import GUARD, MAIN, Table, with_admin
from pycni.firewall.rules import AttachmentRules, NetworkRules
from pycni.host import nft, nft_compiled
from pycni.host.firewall import open_firewall
from pycni.host.nfnetlink import Nfnetlink
from pycni.host.nft_messages import GETRULE, Message, delete_table

pytestmark = pytest.mark.needs("root", "tool:nft")

ADMIN = with_admin(
    MAIN, "tcp dport { 22, 8000-8100 } ct original proto-dst != 22 counter drop\nip saddr 192.0.2.1 accept\n"
)


@pytest.fixture
def kernel(host: Host) -> Iterator[Nfnetlink]:
    with host.in_namespace(Nfnetlink) as socket:
        yield socket


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(nft_compiled, "FOLDER", str(tmp_path))
    return tmp_path


def bytecode(host: Host) -> tuple[list[str], list[str]]:
    """The ruleset as text and as what the kernel runs, without handles; and the elements, which a hash table orders."""
    lines = host.run(["nft", "-s", "--debug=netlink", "list", "ruleset"]).stdout.splitlines()
    rest = [re.sub(r"^((inet|bridge) pycni \w+)[ 0-9]*$", r"\1", line) for line in lines if "\telement" not in line]
    return rest, sorted(line for line in lines if "\telement" in line)


@pytest.mark.parametrize("table", [MAIN, GUARD, ADMIN], ids=["main", "guard", "with the administrator's rules"])
def test_it_is_the_same_table(host: Host, kernel: Nfnetlink, folder: Path, table: Table) -> None:
    """Sets, maps, chains, rules and anonymous sets, to the last instruction; also where it is made again and again."""
    host.in_namespace(lambda: nft.run_text(table.render()))
    wanted = bytecode(host)
    nft_compiled.keep(kernel, table)
    for _ in range(2):
        kernel.batch([delete_table(table.family, table.name)])
        assert bytecode(host) == ([], [])
        known = nft_compiled.load(table)
        assert known
        assert kernel.batch(known) == {}
        assert bytecode(host) == wanted
    assert [file.stat().st_mode & 0o777 for file in folder.iterdir()] == [0o600]


def test_what_cannot_be_trusted_is_not_used(host: Host, kernel: Nfnetlink, folder: Path) -> None:
    """A file cut short, one of another kernel, one of other rules: all are as if they were not there."""
    host.in_namespace(lambda: nft.run_text(MAIN.render()))
    nft_compiled.keep(kernel, MAIN)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for data in (b"", whole[:3], whole[:-1], whole[:200], whole + b"x"):
        file.write_bytes(data)
        assert nft_compiled.load(MAIN) == []
    file.write_bytes(whole)
    assert nft_compiled.load(MAIN)
    assert nft_compiled.load(ADMIN) == []
    file.rename(f"{file}-older")
    assert nft_compiled.load(MAIN) == []


@pytest.mark.parametrize("flushed", ["flush ruleset", "flush table inet pycni", "flush chain inet pycni forward"])
def test_a_table_that_somebody_flushes_meanwhile_is_not_kept(
    host: Host, kernel: Nfnetlink, folder: Path, flushed: str
) -> None:
    """Before it is read, or while it is: half a table would be made from then on, and be taken for whole."""
    host.in_namespace(lambda: nft.run_text(MAIN.render()))
    host.run(["nft", flushed])
    nft_compiled.keep(kernel, MAIN)
    assert list(folder.iterdir()) == []


def test_a_ruleset_that_changes_while_it_is_read_is_not_kept(host: Host, folder: Path) -> None:
    """The generation tells, even where all is there."""

    class Interrupted(Nfnetlink):
        def get(self, message: Message) -> list[bytes]:
            answers = super().get(message)
            if message.kind == GETRULE:
                host.run(["nft", "add table inet other"])
            return answers

    host.in_namespace(lambda: nft.run_text(MAIN.render()))
    with host.in_namespace(Interrupted) as kernel:
        nft_compiled.keep(kernel, MAIN)
    assert list(folder.iterdir()) == []


def test_one_file_stays(host: Host, kernel: Nfnetlink, folder: Path) -> None:
    """What was kept of other rules and other kernels goes with the next; other files are left alone."""
    others = ["inet-pycni-base_00000000-5.0", "pycni.db", "bridge-pycni-base_00000000-5.0"]
    for name in others:
        (folder / name).touch()
    host.in_namespace(lambda: nft.run_text(MAIN.render()))
    nft_compiled.keep(kernel, MAIN)
    assert set(os.listdir(folder)) == {*others[1:], f"inet-pycni-{MAIN.marker()}-{os.uname().release}"}


def test_a_folder_that_cannot_be_written_costs_time_only(
    host: Host, kernel: Nfnetlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft_compiled, "FOLDER", "/proc/self/nowhere")
    host.in_namespace(lambda: nft.run_text(MAIN.render()))
    nft_compiled.keep(kernel, MAIN)
    assert nft_compiled.load(MAIN) == []


@pytest.mark.parametrize("harm", ["none", "refused by the kernel"])
def test_the_firewall_makes_its_table_of_it(host: Host, kernel: Nfnetlink, folder: Path, harm: str) -> None:
    """Without nft, once the messages are known; with them refused, it is made from text as the first time."""
    network, attachment = (
        NetworkRules("net", ("cni0",), subnets=("10.1.0.0/24",)),
        AttachmentRules("net/c/eth0", ("10.1.0.2",)),
    )

    def add() -> None:
        firewall = open_firewall("nftables")
        try:
            firewall.apply_add(network, attachment)
            assert firewall.missing(network, attachment) == ()
        finally:
            firewall.close()

    host.in_namespace(add)
    wanted = bytecode(host)
    kernel.batch([delete_table(MAIN.family, MAIN.name)])
    (file,) = folder.iterdir()
    if harm != "none":
        known = nft_compiled.load(MAIN)
        known.insert(1, known[-1])  # a rule of a chain that is not there yet
        data = nft_compiled.encode(known)
        file.write_bytes(data)
    before = file.stat().st_mtime_ns
    host.in_namespace(add)
    assert bytecode(host) == wanted
    assert (file.stat().st_mtime_ns == before) == (harm == "none")
