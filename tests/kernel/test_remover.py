"""Links that leave while their owner already goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netns_fixtures import Namespace
from pycni.host import links, messages, rtnl
from pycni.host.remover import LEAVING, Remover

pytestmark = pytest.mark.needs("root", "kernel:veth")


def test_everything_asked_for_is_gone_when_wait_returns(make_namespace: Callable[..., Namespace]) -> None:
    """Also from several callers at once, with names that never existed among them; other links stay. The names are
    free: links of the same ones can be made at once."""
    namespace = make_namespace()
    namespace.ip_batch(*(f"link add a{i} type veth peer name b{i}" for i in range(6)))

    def remove() -> list[list[str]]:
        remover = Remover()
        requests = [remover.remove([f"a{i}", f"never{i}"]) for i in range(5)]
        return [request.wait() for request in requests]

    # a thread that is started inside stays inside
    assert namespace.in_namespace(remove) == [[]] * 5
    assert sorted(set(namespace.links()) - {"lo"}) == ["a5", "b5"]
    namespace.ip_batch(*(f"link add a{i} type veth peer name b{i}" for i in range(5)))


def test_a_pair_is_gone_at_both_ends(make_namespace: Callable[..., Namespace]) -> None:
    """When wait returns the peer in the other namespace is off the lists as well."""
    host, container = make_namespace(), make_namespace()
    for _ in range(10):
        host.ip("link", "add", "x0", "type", "veth", "peer", "name", "eth0", "netns", str(container.pid))
        assert host.in_namespace(lambda: Remover().remove(["x0"]).wait()) == []
        assert "eth0" not in container.links()


def test_a_group_is_removed_by_one_request(make_namespace: Callable[..., Namespace]) -> None:
    """delete_group takes exactly the links of the group; an empty group is ENODEV."""
    namespace = make_namespace()
    namespace.ip_batch("link add x0 type veth peer name x1", "link add x2 type veth peer name x3")

    def group() -> None:
        with rtnl.Netlink() as host:
            host.request(messages.set_link("x0", group=LEAVING))
            host.request(messages.delete_group(LEAVING))
            with pytest.raises(OSError, match="No such device"):
                host.request(messages.delete_group(LEAVING))

    namespace.in_namespace(group)
    assert sorted(set(namespace.links()) - {"lo"}) == ["x2", "x3"]


def test_the_mac_of_the_other_end_is_seen_from_the_host(make_namespace: Callable[..., Namespace]) -> None:
    """Of a veth pair that leads out of the namespace; of anything else there is none."""
    host, container = make_namespace(), make_namespace()
    host.ip("link", "add", "x0", "type", "veth", "peer", "name", "eth0", "netns", str(container.pid))
    host.ip_batch("link add y0 type veth peer name y1", "link add br0 type bridge")
    container.ip("link", "set", "eth0", "address", "02:00:00:00:00:07")

    def look() -> list[str]:
        with rtnl.Netlink() as socket:
            return [links.peer_mac(socket, names).hex(":") for names in (["x0"], ["y0"], ["br0"], ["gone"], [])]

    assert host.in_namespace(look) == ["02:00:00:00:00:07", "", "", "", ""]
    container.ip("link", "set", "eth0", "netns", str(host.pid))
    assert host.in_namespace(look)[0] == ""


def test_a_namespace_that_goes_has_no_id(make_namespace: Callable[..., Namespace]) -> None:
    """What the kernel says of a pair whose other end is just being taken down: -1, of which no link is found."""
    host = make_namespace()

    def ask() -> None:
        with rtnl.Netlink() as socket, pytest.raises(OSError, match="Invalid argument"):
            socket.answers(messages.get_link(1, netnsid=-1))

    host.in_namespace(ask)


def test_links_go_also_where_no_thread_can_be_started(
    make_namespace: Callable[..., Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the number of processes is limited; and a link that never existed is a success."""
    namespace = make_namespace()
    namespace.ip("link", "add", "x0", "type", "veth", "peer", "name", "x1")

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    def remove() -> list[str]:
        with monkeypatch.context() as changed:
            changed.setattr("_thread.start_new_thread", refuse)
            return links.Removal(["x0", "never"]).wait()

    assert namespace.in_namespace(remove) == []
    assert set(namespace.links()) == {"lo"}
