"""What of a published port is pure: words, what is held, and whose command line is whose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.firewall.rules import PortMapping
from pycni.portmap import holding
from pycni.portmap.holding import HELD_PORTS, Binding


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        (Binding(4, "tcp", "", 80, "10.1.0.2", 8080), "80/tcp"),
        (Binding(6, "udp", "", 80, "fd00::2", 8080), "80/udp"),
        (Binding(4, "tcp", "127.0.0.1", 80, "10.1.0.2", 8080, count=10), "127.0.0.1:80-89/tcp"),
        (Binding(6, "tcp", "::1", 80, "fd00::2", 8080), "[::1]:80/tcp"),
    ],
)
def test_people_read_the_hosts_side(binding: Binding, words: str) -> None:
    """As `ss` and URLs write it."""
    assert binding.shown() == words


@given(st.sampled_from(("tcp", "udp", "sctp")), st.integers(1, 2 * HELD_PORTS), st.booleans())
def test_what_sockets_own(proto: str, count: int, proxied: bool) -> None:
    """Every run that the proxy serves and every short one, but of no protocol without sockets."""
    binding = Binding(4, proto, "", 1000, "10.1.0.2", 80, proxied=proxied, count=count)
    assert binding.held == (proto != "sctp" and (proxied or count <= HELD_PORTS))


@given(
    st.sampled_from((("10.1.0.2", 4), ("fd00::2", 6))),
    st.integers(1, 65000),
    st.integers(0, 500),
    st.integers(1, 65000),
)
def test_a_mapping_is_held_port_for_port(of: tuple[str, int], low: int, more: int, port: int) -> None:
    """The family is the container's, the run has both ends."""
    address, family = of
    mapping = PortMapping("udp", "", low, low + more, address, port)
    assert holding.of_mapping(mapping) == Binding(family, "udp", "", low, address, port, count=more + 1)


@pytest.mark.parametrize(
    ("arguments", "ours"),
    [
        ("/usr/bin/python3 -P -m pycni agent", True),
        ("python3 /usr/local/bin/pycni agent --socket /run/x", True),
        ("/v/bin/python -I -S /v/lib/pycni/portmap/proxy/__main__.py --control /run/pycni/proxy.sock", True),
        ("python3 -m pycni events", False),
        ("/usr/sbin/nginx -g daemon", False),
        ("agent pycni", False),
        ("", False),
    ],
)
def test_our_own_processes_are_known(arguments: str, ours: bool) -> None:
    """By their command lines, as they are started."""
    assert holding.is_ours(arguments.split()) is ours


ID = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.mark.parametrize(
    ("arguments", "container_id", "runtimes"),
    [
        (f"/usr/bin/conmon --api-version 1 -c {ID} -u {ID}", ID, True),
        (f"conmon -c {ID[:12]}", ID[:12], True),
        (f"conmon -c {ID[:12]}", ID, False),
        (f"tail -f /var/log/{ID}", ID, False),
        ("python3 -m http.server 8080", "http.server", False),
        ("nginx -c deadbeef", "deadbeef", False),
        ("serve production-web", "production-web", False),
    ],
)
def test_a_containers_own_runtime_is_known(arguments: str, container_id: str, runtimes: bool) -> None:
    """By an id that nobody writes by chance, as a word of its own."""
    assert holding.is_runtimes(arguments.split(), container_id) is runtimes


@pytest.mark.parametrize(
    ("cni_args", "listens"),
    [
        ("IgnoreUnknown=1;K8S_POD_NAME=web", True),  # podman
        ("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1", False),
        ("IgnoreUnknown=1", False),
        ("", False),
    ],
)
def test_a_runtime_that_listens_itself_is_known(cni_args: str, listens: bool) -> None:
    """By what it says of the pod."""
    assert holding.listens_itself(cni_args) is listens


def test_the_holder_is_the_last_that_was_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An executable has the one that only looks, and no proxy."""
    assert isinstance(holding.holder(), holding.Standalone)
    assert holding.holder().serves_proxy is False
    monkeypatch.setattr(holding, "_holder", holding.holder())
    other = holding.Standalone()
    holding.install(other)
    assert holding.holder() is other
