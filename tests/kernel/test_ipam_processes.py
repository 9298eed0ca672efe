"""The IPAM as runtimes meet it: many processes at once, real namespaces, and the reference plugins on either side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import Container, Host, run_cni
from pycni.cni.env import Call
from pycni.ipam import delegate
from pycni.store import open_store
from tests.unit.ipam_calls import add_addresses, delete, leased, netconf

REFERENCE = "/usr/lib/cni"
REPOSITORY = Path(__file__).parents[2]

LOOP = """
import sys
sys.path[:0] = sys.argv[1:3]
from pycni.store import open_store
from tests.unit.ipam_calls import add, delete
path, worker, rounds, subnet = sys.argv[3], sys.argv[4], int(sys.argv[5]), sys.argv[6]
for at in range(rounds):
    with open_store(path) as store:
        print(f"{worker}-{at}", add(store, f"{worker}-{at}", {"subnet": subnet}).ips[0].address.ip, flush=True)
    if at % 5 == 4:  # one of five goes again
        with open_store(path) as store:
            delete(store, f"{worker}-{at}", {"subnet": subnet})
        print(f"{worker}-{at}", "gone", flush=True)
"""


def worker(path: Path, name: str, rounds: int, subnet: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        LOOP,
        str(REPOSITORY / "src"),
        str(REPOSITORY),
        str(path),
        name,
        str(rounds),
        subnet,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def outcome(lines: list[str]) -> dict[str, str]:
    """Container to address, of those that a worker said to have and not to have deleted."""
    have: dict[str, str] = {}
    for line in lines:
        container, word = line.split()
        have[container] = word
    return {container: word for container, word in have.items() if word != "gone"}


def test_eight_processes_never_get_the_same_address(tmp_path: Path) -> None:
    """125 ADDs each, 25 of them deleted again: 800 leases, as every process was told, no address twice."""
    path = tmp_path / "pycni.db"
    workers = [worker(path, f"w{at}", 125, "10.9.0.0/21") for at in range(8)]
    told: dict[str, str] = {}
    for each in workers:
        out, _ = each.communicate(timeout=120)
        assert each.returncode == 0
        told |= outcome(out.splitlines())
    assert len(told) == 800
    assert max(Counter(told.values()).values()) == 1
    with open_store(str(path)) as store:
        assert leased(store) == {address: container for container, address in told.items()}


def test_killed_processes_lose_no_lease_and_double_none(tmp_path: Path) -> None:
    """kill -9 of two of four at any moment: what was said is so, but for each one's last step."""
    path = tmp_path / "pycni.db"
    workers = [worker(path, f"w{at}", 60, "10.9.0.0/22") for at in range(4)]
    told: dict[str, str] = {}
    for at, each in enumerate(workers):
        with each:
            assert each.stdout
            lines = [each.stdout.readline() for _ in range(7 + 9 * at)]
            if at % 2:
                each.send_signal(signal.SIGKILL)
            lines += each.stdout.readlines()
        told |= outcome([line for line in lines if line.endswith("\n")])
    with open_store(str(path)) as store:
        held = {container: address for address, container in leased(store).items()}
        assert store.query("PRAGMA integrity_check") == [("ok",)]
    assert len(held) == len(set(held.values()))
    in_doubt = [each for each in {*held, *told} if held.get(each) != told.get(each)]
    assert len(in_doubt) <= 2
    assert all(each.startswith(("w1", "w3")) for each in in_doubt)


@pytest.mark.needs("root")
def test_a_lease_ends_with_its_namespace_once_the_pool_is_full(tmp_path: Path, host: Host) -> None:
    """The container died without a DEL: its address goes to the next one, a living one's never does."""
    ipam = {"subnet": "10.9.0.0/30"}
    with open_store(str(tmp_path / "pycni.db")) as store:
        first, second = host.container("first"), host.container("second")
        assert add_addresses(store, "first", ipam, netns=first.path) == ["10.9.0.2"]
        with pytest.raises(Exception, match="no IP addresses available"):
            add_addresses(store, "second", ipam, netns=second.path)
        first.delete()
        assert add_addresses(store, "second", ipam, netns=second.path) == ["10.9.0.2"]
        assert leased(store) == {"10.9.0.2": "second"}


@pytest.fixture
def our_plugins(tmp_path: Path) -> Path:
    """A plugin directory with our IPAM under its own and the drop-in name."""
    directory = tmp_path / "bin"
    directory.mkdir()
    launcher = directory / "pycni-ipam"
    run = "import sys; from pycni.exe.run import main; sys.exit(main())"
    launcher.write_text(
        f"#!/usr/bin/python3 -ISE\nimport sys; sys.path.insert(0, {str(REPOSITORY / 'src')!r})\n{run}\n"
    )
    launcher.chmod(0o755)
    os.link(launcher, directory / "host-local")
    return directory


def bridge_conf(tmp_path: Path, **ipam: Any) -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "net1",
        "type": "bridge",
        "bridge": "br-ipam",
        "isGateway": True,
        "ipam": {"dataDir": str(tmp_path / "networks"), "subnet": "10.9.0.0/24", **ipam},
    }


@pytest.mark.needs("root", f"tool:{REFERENCE}/bridge")
@pytest.mark.parametrize("name", ["pycni-ipam", "host-local"])
def test_the_reference_bridge_works_with_our_ipam(
    tmp_path: Path, host: Host, container_ns: Container, our_plugins: Path, name: str
) -> None:
    """ADD, CHECK, DEL and a second container, by executable."""
    conf = bridge_conf(tmp_path, type=name, routes=[{"dst": "0.0.0.0/0"}])

    def bridge(command: str, container: str, netns: Container, **more: Any) -> Any:
        return run_cni(
            host, f"{REFERENCE}/bridge", "bridge", command, {**conf, **more}, container_id=container, netns=netns,
            cni_path=f"{our_plugins}:{REFERENCE}",
        )  # fmt: skip

    other = host.container("other")
    result = bridge("ADD", "c1", container_ns).result()
    assert [(each["address"], each["gateway"]) for each in result["ips"]] == [("10.9.0.2/24", "10.9.0.1")]
    assert bridge("ADD", "c2", other).result()["ips"][0]["address"] == "10.9.0.3/24"
    assert bridge("CHECK", "c1", container_ns, prevResult=result).ok
    assert bridge("DEL", "c1", container_ns).ok
    assert bridge("CHECK", "c1", container_ns, prevResult=result).error_code is not None
    assert bridge("DEL", "c2", other).ok


@pytest.mark.needs(f"tool:{REFERENCE}/host-local")
def test_our_delegation_works_with_the_reference_and_its_leases_can_be_taken_over(tmp_path: Path) -> None:
    """First the reference host-local leases for us; then our own takes the same directory and goes on."""
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "networks"), "ranges": [[{"subnet": "10.9.0.0/24"}]]}
    with open_store(str(tmp_path / "pycni.db")) as store:

        def reference(verb: str, container: str) -> list[str]:
            variables = {"COMMAND": verb, "CONTAINERID": container, "NETNS": "/x", "IFNAME": "eth0", "PATH": REFERENCE}
            call = Call(verb, path=(REFERENCE,), environ=tuple((f"CNI_{key}", text) for key, text in variables.items()))
            result = delegate.ask(verb, call, netconf(ipam, version="1.0.0", command=verb), store)
            return [str(each.address.ip) for each in result.ips] if result else []

        assert [reference("ADD", name) for name in "abc"] == [["10.9.0.2"], ["10.9.0.3"], ["10.9.0.4"]]
        assert reference("DEL", "c") == []
        assert leased(store) == {}
        assert add_addresses(store, "d", ipam) == ["10.9.0.5"]
        delete(store, "a", ipam)
        assert leased(store) == {"10.9.0.3": "b", "10.9.0.5": "d"}
