"""An overlay lab looked at: ping matrix, picture, capture of what its tunnels carry; and agents and etcd killed."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

import pytest

from netns_fixtures import wait_until
from pycni.lab import breaking
from pycni.lab.checks import namespaces_of
from pycni.lab.errors import LabError
from pycni.lab.faults import faults_in
from pycni.lab.looking import rows
from pycni.lab.picture_of import picture_of
from pycni.lab.pings import Probe, ping
from pycni.lab.running import RunningLab

from .broken_lab import address_of, claim, holds, lab_of

pytestmark = pytest.mark.needs("root", "tool:etcd", "tool:tcpdump", "kernel:vxlan", "kernel:nft_bridge", "python:yaml")

OVERLAY = """
etcd: {}
networks:
  blue: {type: overlay, vni: 4242, ipv4: 10.1.0.0/16, ipv6: "fd00:1::/64"}
hosts:
  h[1-2]:
    containers:
      a: {}
      b: {}
"""


@pytest.fixture(scope="module")
def overlay() -> Iterator[RunningLab]:
    with lab_of(OVERLAY, "looks") as lab:
        yield lab


@pytest.fixture
def lab(overlay: RunningLab) -> Iterator[RunningLab]:
    overlay.reload()
    yield overlay
    breaking.heal(overlay)


def argv(verb: str, lab: RunningLab, *words: object) -> list[str]:
    return [sys.executable, "-m", "pycni", "lab", verb, "--lab", lab.name, *map(str, words)]


def pycni(verb: str, lab: RunningLab, *words: object, rc: int = 0) -> str:
    done = subprocess.run(argv(verb, lab, *words), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == rc, f"{done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def test_ping_matrix_as_table_picture_and_json(lab: RunningLab, tmp_path: Path) -> None:
    """Each container to each other over both families, with latencies; all as expected is exit code 0."""
    words = [*argv("ping-matrix", lab)[:-2], lab.name, "--picture", str(tmp_path / "m.svg")]  # the name as `ps` has it
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^h1/a +— +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d$", told, re.MULTILINE)
    assert "4 containers, 24 pairs asked, all as expected" in told
    assert len(ElementTree.parse(tmp_path / "m.svg").getroot().findall("{*}rect")) > 16
    document = json.loads(pycni("ping-matrix", lab, "--json", "-6", "-c", "2"))
    assert {pair["family"] for pair in document["pairs"]} == {6} and document["summary"]["wrong"] == 0
    assert all(pair["sent"] == 2 and pair["rtt_ms"]["median"] > 0 for pair in document["pairs"])


def test_ping_matrix_of_a_broken_lab_fails(lab: RunningLab) -> None:
    """Exit code 1; over the cut link nothing, on each host everything."""
    breaking.break_links(lab, "cut", ["h2"])
    told = pycni("ping-matrix", lab, "--compact", "-c", "1", "-w", "0.2", rc=1)
    assert [line[7:] for line in told.splitlines()[1:5]] == ["-+XX", "+-XX", "XX-+", "XX+-"]
    assert "16 not as expected" in told
    assert "h1/a → h2/a on blue (10.1." in told and "): 1 of 1 lost" in told


def test_a_namespace_that_is_gone_answers_nothing(lab: RunningLab) -> None:
    """Its probes were not sent, and the others' are not held up."""
    target = address_of(lab, "h2/a")
    gone = {**namespaces_of(lab), "x": "/proc/1/ns/none"}
    there, missing = ping(gone, [Probe("h1/a", target), Probe("x", target)])
    assert len(there.rtts_ms) == 1 and missing.sent == 0


def test_picture_of_a_lab_that_runs(lab: RunningLab, tmp_path: Path) -> None:
    """Every host, container, address and fault is in it, as SVG and as Mermaid."""
    breaking.break_links(lab, "loss", ["h1"], "20%")
    breaking.kill(lab, "agent h2")
    path = pycni("graph", lab, "-o", tmp_path / "lab.svg").strip()
    words = {element.text for element in ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}text")}
    shown = {"h1", "h2", "etcd1", "blue", "a", "b", "192.0.2.1", "loss 20 %", "agent is down"}
    assert shown | {address_of(lab, "h1/a"), address_of(lab, "h2/b", 6)} <= words
    mermaid = pycni("graph", lab, "--format", "mermaid")
    assert mermaid.startswith("flowchart TB\n") and address_of(lab, "h1/a") in mermaid
    pycni("graph", lab, "-o", tmp_path / "lab.md")
    assert (tmp_path / "lab.md").read_text() == f"```mermaid\n{mermaid}```\n"


def test_picture_of_another_kind_is_refused(lab: RunningLab, tmp_path: Path) -> None:
    """Nobody gets an SVG that is called x.png."""
    pycni("graph", lab, "-o", tmp_path / "x.png", rc=2)
    assert not list(tmp_path.iterdir())
    assert pycni("graph", lab, "-o", tmp_path / "x.svgz", "--format", "svg")


def test_a_container_that_is_not_attached_is_named(lab: RunningLab) -> None:
    """Its ADD was refused when its host was booted, say: `ps` has it, `ping-matrix` and `heal` say what to do."""
    with lab.changing() as state:
        gone = state["machines"]["h2"]["containers"].pop("b")
    try:
        assert ("h2", "b", "", "", "not attached") in rows(lab)
        for verb in ("ping-matrix", "heal"):
            assert re.search(r"not attached: h2/b; `pycni lab up \S+` attaches", pycni(verb, lab))
    finally:
        with lab.changing() as state:
            state["machines"]["h2"]["containers"]["b"] = gone
    assert "not attached" not in pycni("heal", lab)


def test_capture_of_vxlan_between_two_hosts(lab: RunningLab, tmp_path: Path) -> None:
    """From the underlay's cable into a file, decoded by tcpdump: hosts, the network's number, containers."""
    source, target = address_of(lab, "h1/a"), address_of(lab, "h2/b")
    file = tmp_path / "vxlan.pcap"
    words = ("h1", "-i", "eth0", "-w", file, "-c", "2", "-t", "20", "--filter", "udp port 4789")
    with subprocess.Popen(argv("capture", lab, *words), stderr=subprocess.PIPE, text=True) as capture, ended(capture):
        assert capture.stderr is not None and "listening on eth0" in _line(capture.stderr, "listening")
        lab.run("h1", "a", ["ping", "-c1", "-W2", target])
        assert capture.wait(25) == 0
        capture.stderr.close()
    decoded = subprocess.run(["tcpdump", "-nr", file], capture_output=True, text=True, check=True).stdout
    h1, h2 = lab.link("h1").ipv4, lab.link("h2").ipv4
    request, reply = re.findall(r"IP (\S+)\.\d+ > (\S+)\.4789: VXLAN, flags \[I\] \(0x08\), vni (\d+)", decoded)
    assert request == (h1, h2, "4242") and reply == (h2, h1, "4242")
    assert f"IP {source} > {target}: ICMP echo request" in decoded
    assert f"IP {target} > {source}: ICMP echo reply" in decoded


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """A claim that fails must not wait for ever for what it did not end; its tcpdump goes with its lab."""
    try:
        yield
    finally:
        process.kill()


def _line(stream: IO[str], word: str) -> str:
    """The first line with *word*."""
    return next(line for line in stream if word in line)


def test_capture_in_a_container_and_at_the_switch(lab: RunningLab) -> None:
    """Decoded text to stdout; ended by Ctrl-C, a number of packets or a time."""
    target = address_of(lab, "h1/b")
    with subprocess.Popen(
        argv("capture", lab, "h1/b", "-i", "eth0", "--filter", "icmp"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as capture, ended(capture):  # fmt: skip
        assert capture.stdout is not None and capture.stderr is not None
        _line(capture.stderr, "listening")
        lab.run("h1", "a", ["ping", "-c1", "-W2", target])
        assert f"> {target}: ICMP echo request" in capture.stdout.readline()
        capture.send_signal(signal.SIGINT)
        assert capture.wait(10) == 0
        capture.stdout.close()
        capture.stderr.close()
    pycni("capture", lab, "switch:h2", "-t", "0.1")
    assert "has no container 'c'" in _failed(lab, "h1/c")
    assert "has no host 'h9'" in _failed(lab, "switch:h9")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_capture_that_is_ended_takes_its_tcpdump_along(lab: RunningLab, tmp_path: Path, number: int) -> None:
    """As by timeout(1), or by a terminal that is closed; what was seen is in the file."""
    words = argv("capture", lab, "h1", "-i", "eth0", "-w", tmp_path / "ended.pcap")
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as capture, ended(capture):
        assert capture.stderr is not None
        _line(capture.stderr, "listening")
        capture.send_signal(number)
        assert "packets captured" in _line(capture.stderr, "captured")
        assert capture.wait(10) == 0
        capture.stderr.close()


def _failed(lab: RunningLab, target: str) -> str:
    done = subprocess.run(argv("capture", lab, target), capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 3
    return done.stderr


def test_agents_and_etcd_killed_and_healed(lab: RunningLab) -> None:
    """Traffic goes on without either; `ps` tells; `heal` starts them all."""
    assert breaking.kill(lab, "agent h1") == "agent h1 is killed"
    assert breaking.kill(lab, "etcd etcd1") == "etcd etcd1 is killed"
    picture = picture_of(RunningLab.load(lab.name))
    assert picture.hosts[0].trouble == "agent is down" and picture.stations[0].trouble == "etcd is down"
    assert "fault: agent h1 is killed" in subprocess.run(
        [sys.executable, "-m", "pycni", "lab", "ps", lab.name], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    assert holds(lab, claim("reach"))
    assert breaking.heal(lab) == ["agent h1 is killed", "etcd etcd1 is killed"]
    assert faults_in(lab.state) == ()
    wait_until(lambda: lab.run("h1", None, ["pycni", "etcd", "check", "blue"], check=False).returncode == 0, 10)
    with pytest.raises(LabError, match="no etcd member 'h1'"):
        breaking.kill(lab, "etcd h1")
