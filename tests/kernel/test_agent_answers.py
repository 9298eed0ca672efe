"""Through the agent a call is what it is without: whose namespace, which answer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netns_fixtures import Container, Host, can_ping, wait_until
from tests.kernel.agent_lab import DEADLINE_S, AgentHost
from tests.kernel.bridge_lab import Conf, Frames, Lab, frame, network, static
from tests.kernel.test_bridge_addresses import announces

pytestmark = pytest.mark.needs("root", "tool:nft", "tool:cc", "kernel:bridge", "kernel:veth")

QUIET = 'reconcile_s = 0\nlog_level = "error"\n'
CHANGED = "02:00:00:00:00:77"


@pytest.fixture
def lab(host: Host, asking: Path) -> Lab:
    """A host whose plugins ask the agent."""
    return Lab(host, asking)


def test_namespace_path_of_the_callers_mounts(lab: Lab, agents: AgentHost, c1: Container) -> None:
    """CNI_NETNS that only the caller can open works, for ADD, CHECK and DEL: the launcher sends it open."""
    agents.start(config=QUIET)
    result = in_private_mounts(lab, c1, "ADD", network())
    assert result["interfaces"][2]["sandbox"] == "/run/private"
    assert can_ping(c1, "10.1.0.1")
    in_private_mounts(lab, c1, "CHECK", {**network(), "prevResult": result})
    in_private_mounts(lab, c1, "DEL", network())
    assert c1.links() == ["lo"]
    assert agents.counts() == {"ADD": 1, "CHECK": 1, "DEL": 1}
    assert not os.path.exists(lab.host.file("/run/private"))


def in_private_mounts(lab: Lab, container: Container, command: str, conf: Conf) -> Any:
    """The answer to a call from a mount namespace with a /run of its own, where alone the namespace has a path."""
    steps = (
        "exec 9<$NETNS && mount -nt tmpfs tmpfs /mnt && mkdir /mnt/pycni && mount -nB /run/pycni /mnt/pycni",
        "mount -nM /mnt /run && : >/run/private && mount -nB /proc/self/fd/9 /run/private && exec 9<&-",
        f"exec {lab.plugins}/bridge",
    )
    environ = {
        "NETNS": container.path,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container.name,
        "CNI_NETNS": "/run/private",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(lab.plugins),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    script = " && ".join(steps)
    done = lab.host.run(["unshare", "--mount", "sh", "-c", script], input=json.dumps(conf), env=environ, check=False)
    assert done.returncode == 0, done
    return json.loads(done.stdout) if done.stdout else None


CASES: dict[str, tuple[str, Conf | str, dict[str, Any]]] = {
    "add": ("ADD", network(), {}),
    "add static": ("ADD", network(ipam=static("10.1.0.77/24"), cniVersion="0.3.1"), {}),
    "add old": ("ADD", network(cniVersion="0.2.0"), {}),
    "add without ipam": ("ADD", network(ipam=None, isDefaultGateway=None, ipMasq=None), {}),
    "wrong config": ("ADD", network(mtu="many"), {}),
    "no json": ("ADD", "{", {}),
    "no stdin": ("ADD", "", {}),
    "wrong version": ("ADD", network(cniVersion="9.0.0"), {}),
    "no such ipam": ("ADD", network(ipam={"type": "nowhere"}), {}),
    "no namespace": ("ADD", network(), {"netns": "/run/netns/none"}),
    "namespace is a file": ("ADD", network(), {"netns": "/etc/passwd"}),
    "namespace is a directory": ("ADD", network(), {"netns": "/run"}),
    "namespace of another kind": ("ADD", network(), {"netns": "/proc/self/ns/uts"}),
    "namespace of the host": ("ADD", network(), {"netns": "/proc/1/ns/../ns/net"}),
    "bad container id": ("ADD", network(), {"container_id": "a/b"}),
    "bad interface": ("ADD", network(), {"ifname": "a b"}),
    "unknown command": ("MAKE", network(), {}),
    "bad args": ("ADD", network(), {"args": "IP"}),
    "version": ("VERSION", network(), {}),
    "del of nothing": ("DEL", network(), {}),
    "del without namespace": ("DEL", network(), {"netns": ""}),
    "check of nothing": ("CHECK", network(), {}),
    "status": ("STATUS", network(), {}),
    "gc": ("GC", network(), {}),
    "nothing": ("", network(), {}),
}


def test_agent_says_what_the_executable_says(
    make_host: Callable[..., Host], asking: Path, plugins: Path, tmp_path: Path
) -> None:
    """Exit code, stdout and stderr of all kinds of calls, with a container of the same name on a host of its own."""
    with_agent, without = make_host("same"), make_host("other")
    agents = AgentHost(with_agent, tmp_path / "agent.log")
    agents.start(config=QUIET)
    for name, (command, conf, how) in CASES.items():
        said = []
        for host, directory in ((with_agent, asking), (without, plugins)):
            place = host.containers.get("c1") or host.container("c1")
            lab = Lab(host, directory)
            given = {"container_id": "c1", "netns": place.file, "cni_path": str(directory), **how}
            said.append(said_by(lab, command, conf, given))
            assert lab.call("DEL", network(), place).ok
        assert said[0] == said[1], name


def said_by(lab: Lab, command: str, conf: Conf | str, how: dict[str, Any]) -> tuple[Any, ...]:
    answer = lab.call(command, conf, **how)
    try:
        out = answer.json
    except AssertionError:
        return answer.rc, answer.stdout, answer.stderr
    for interface in out.get("interfaces", ()):
        interface.pop("mac", None)
    text = json.dumps(out).replace(str(lab.plugins), "DIR")
    return answer.rc, text, answer.stderr


class Announced:
    """What `c2` hears on the bridge of an agent's host that gets `c1`, and whether the agent is done with that."""

    def __init__(self, lab: Lab, agents: AgentHost, c2: Container) -> None:
        agents.start(config=QUIET)
        lab.add(network(), c2)
        self._lab = lab
        self._descriptors = f"/proc/{agents.ask('status')['pid']}/fd"
        self._before = len(os.listdir(self._descriptors))
        self.heard = Frames(c2, "eth0")

    def add(self, container: Container) -> str:
        """Attach *container* with 10.1.0.5 and fd00:1::5; its MAC."""
        result = self._lab.add(network("two", bridge="cni1", ipam=static("10.1.0.5/24", "fd00:1::5/64")), container)
        mac: str = result["interfaces"][2]["mac"]
        return mac

    def wait_until_let_go(self) -> None:
        wait_until(
            lambda: len(os.listdir(self._descriptors)) <= self._before, DEADLINE_S, "the agent lets go of the container"
        )


@pytest.fixture
def announced(lab: Lab, agents: AgentHost, c2: Container) -> Iterator[Announced]:
    made = Announced(lab, agents, c2)
    yield made
    made.heard.close()


@pytest.mark.parametrize("family", [4, 6])
def test_addresses_are_announced_after_the_answer(announced: Announced, c1: Container, family: int) -> None:
    """As without an agent, a little later; and nothing of the container is held open for it."""
    mac = announced.add(c1)
    announced.heard.until(lambda one: announces(one, family, mac))
    announced.wait_until_let_go()


@pytest.mark.parametrize("family", [4, 6])
def test_nobody_is_told_a_mac_that_was_changed_meanwhile(announced: Announced, c1: Container, family: int) -> None:
    """Between answer and announcement a chained plugin may give the link another MAC: what is heard last is that."""
    announced.add(c1)
    c1.ip("link", "set", "eth0", "address", CHANGED)
    announced.wait_until_let_go()
    last = Frames(c1, "eth0")
    last.send(frame(CHANGED, b"the end"))
    seen = announced.heard.until(lambda one: one[12:14] == b"\x88\xb5")
    last.close()
    told = [mac for one in seen if announces(one, family, mac := one[6:12].hex(":"))]
    assert told[-1] == CHANGED
