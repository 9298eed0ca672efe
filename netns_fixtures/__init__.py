"""Network namespaces, hosts made of them, and the tools to test network plugins there, as a pytest plugin.

Load it with `pytest_plugins = ["netns_fixtures"]` in the top conftest.py; README.md has an example. It needs root,
Linux, iproute2 and util-linux, imports nothing but pytest and the standard library, and never changes the machine's
own network.
"""

from __future__ import annotations

from .capabilities import missing, needs
from .cni import CniRun, run_cni
from .echo import Answer, EchoServer
from .etcd_server import Etcd, EtcdMember
from .hosts import Container, Host
from .namespace import Namespace
from .plugin import (
    closing,
    container_ns,
    etcd,
    host,
    lab,
    make_etcd,
    make_host,
    make_namespace,
    make_outside,
    outside,
    pytest_assertrepr_compare,
    pytest_configure,
    pytest_runtest_setup,
    underlay,
)
from .probes import can_ping, can_tcp, can_udp, tcp_peer_seen, udp_peer_seen
from .pycni_lab import Lab, LabPlace
from .segment import Underlay
from .snapshots import Snapshot, assert_unchanged, diff, netns_snapshot, snapshot
from .uplink import Outside
from .waiting import wait_until

__all__ = [
    "Answer",
    "CniRun",
    "Container",
    "EchoServer",
    "Etcd",
    "EtcdMember",
    "Host",
    "Lab",
    "LabPlace",
    "Namespace",
    "Outside",
    "Snapshot",
    "Underlay",
    "assert_unchanged",
    "can_ping",
    "can_tcp",
    "can_udp",
    "closing",
    "container_ns",
    "diff",
    "etcd",
    "host",
    "lab",
    "make_etcd",
    "make_host",
    "make_namespace",
    "make_outside",
    "missing",
    "needs",
    "netns_snapshot",
    "outside",
    "pytest_assertrepr_compare",
    "pytest_configure",
    "pytest_runtest_setup",
    "run_cni",
    "snapshot",
    "tcp_peer_seen",
    "udp_peer_seen",
    "underlay",
    "wait_until",
]
