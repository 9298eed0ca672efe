"""A network as `pycni networks` shows it, by what is known of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pycni.cli.known import Known
from pycni.cli.networks import NetworkList, parse_list
from pycni.etcd.overview import HostView, NetworkView

RANGES = {"type": "pycni-ipam", "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]}
VIEW = NetworkView("net", "/pycni", "l2", 7, ("10.1.0.0/16",), hosts=(HostView("n1", "in sync", containers=2),))


def network(kind: str, **keys: Any) -> NetworkList:
    plugin = {"type": kind, **keys}
    return parse_list(json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]}).encode())


OVERLAY = network("pycni-overlay", ipam=RANGES)


@pytest.mark.parametrize(
    ("ipam", "shown"),
    [
        (RANGES, "10.1.0.0/16 fd00:1::/64"),
        ({**RANGES, "type": "host-local"}, "10.1.0.0/16 fd00:1::/64"),
        ({"type": "host-local", "subnet": "10.2.0.0/24"}, "10.2.0.0/24"),
        ({"type": "pycni-ipam", "ranges": [[{"subnet": "10.2.0.9/99"}]]}, ""),
        ({"type": "dhcp"}, ""),
        ({}, ""),
    ],
)
def test_a_network_of_this_host_shows_its_subnets(ipam: dict[str, Any], shown: str) -> None:
    """Of whatever bridge, by pycni or not; none where the configuration gives none."""
    known = Known(network("bridge", ipam=ipam), None, 2)
    assert known.row() == ("net", "bridge", "", shown, "1", "2", "")
    assert known.as_json()["subnets"] == shown.split()


@pytest.mark.parametrize(
    ("known", "state"),
    [
        (Known(OVERLAY, None, 0), "not joined"),
        (Known(OVERLAY, None, 0, silent=True), "unknown: etcd is silent"),
        (Known(network("pycni-overlay", mode="multicast"), None, 0), ""),
        (Known(OVERLAY, VIEW, 2), "in sync"),
        (Known(OVERLAY, VIEW, 2, silent=True), "in sync"),
        (Known(None, VIEW, 2), "in sync, no configuration here"),
        (Known(OVERLAY, VIEW.replace(hosts=(HostView("n1", "unknown"),)), 2), "unknown: etcd is silent"),
    ],
)
def test_states(known: Known, state: str) -> None:
    """What etcd says, or said last, comes first; who does not know says so."""
    assert known.state == known.row()[-1] == known.as_json()["state"] == state


def test_what_only_this_host_tells_is_a_lower_bound() -> None:
    """Hosts and containers elsewhere are not counted then."""
    assert Known(OVERLAY, VIEW, 2).row()[4:6] == ("1", "2")
    own = VIEW.replace(hosts=(HostView("n1", "unknown", containers=2),))
    assert Known(OVERLAY, own, 2).row()[4:6] == ("≥1", "≥2")
