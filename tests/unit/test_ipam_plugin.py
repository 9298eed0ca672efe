"""host-local's commands on a store: what is given out, to whom, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycni.cni.errors import CniError, Code
from pycni.cni.result import Dns
from pycni.ipam import plugin
from pycni.store import Store, open_store
from tests.unit.ipam_calls import add, add_addresses, call, delete, leased, netconf

SMALL = {"ranges": [[{"subnet": "10.9.0.0/29"}]]}  # .2 to .6
DUAL = {"ranges": [[{"subnet": "10.9.0.0/29"}], [{"subnet": "fd00::/125"}]]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "state" / "pycni.db")) as opened:
        yield opened


def fails(store: Store, container: str, ipam: dict[str, Any], **more: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        add(store, container, ipam, **more)
    return caught.value


def test_addresses_are_given_in_order_one_of_every_set(store: Store) -> None:
    """.2, .3, … as with the reference, with prefix length and gateway."""
    assert [str(each.address) for each in add(store, "a", DUAL).ips] == ["10.9.0.2/29", "fd00::2/125"]
    result = add(store, "b", DUAL)
    assert [(str(each.address), str(each.gateway), each.interface) for each in result.ips] == [
        ("10.9.0.3/29", "10.9.0.1", None),
        ("fd00::3/125", "fd00::1", None),
    ]
    assert result.interfaces == ()


def test_released_addresses_rest_until_all_were_used(store: Store) -> None:
    """A new container gets a never used address; afterwards that which was released first."""
    for name in "abc":
        add(store, name, SMALL)
    delete(store, "b", SMALL)
    delete(store, "a", SMALL)
    assert [add_addresses(store, name, SMALL) for name in "defg"] == [
        ["10.9.0.5"],
        ["10.9.0.6"],
        ["10.9.0.3"],
        ["10.9.0.2"],
    ]


def test_the_same_container_gets_its_address_back(store: Store) -> None:
    """As long as nobody else got it; with both families; and the interface counts."""
    for name in "abcde":
        add(store, name, DUAL)
    for name in "ab":
        delete(store, name, DUAL)
    assert add_addresses(store, "b", DUAL) == ["10.9.0.3", "fd00::3"]
    assert add_addresses(store, "other", DUAL) == ["10.9.0.2", "fd00::7"]
    assert fails(store, "a", DUAL).code == Code.EXHAUSTED


def test_former_macs_are_those_seen_at_the_end(store: Store) -> None:
    """None for addresses that nobody had; b"" where nobody saw it; the pool's own MAC is the same every time."""
    first = add(store, "a", DUAL)
    assert first.former_macs == ()
    delete(store, "a", DUAL)
    again = add(store, "a", DUAL)
    assert again.former_macs == (b"", b"")
    assert again.is_known_otherwise(again.mac)
    assert again.mac == first.mac != add(store, "b", DUAL).mac
    delete(store, "a", DUAL, mac=again.mac)
    third = add(store, "a", DUAL)
    assert third.former_macs == (again.mac, again.mac)
    assert not third.is_known_otherwise(third.mac)
    delete(store, "a", DUAL, mac=b"other!")
    assert add(store, "a", DUAL).is_known_otherwise(third.mac)
    delete(store, "a", DUAL, mac=third.mac)


def test_a_former_mac_is_of_the_same_owner(store: Store) -> None:
    """How neighbours came to know another one's address nobody knows: it may have had two interfaces on the link."""
    one = {"ranges": [[{"subnet": "10.9.0.0/29", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.2"}]]}
    mac = add(store, "a", one).mac
    delete(store, "a", one, mac=mac)
    assert add(store, "b", one).former_macs == (b"",)
    delete(store, "b", one, mac=mac)
    assert add(store, "b", one, ifname="eth1").former_macs == (b"",)


def test_addresses_of_a_pool_that_began_anew_may_be_known(store: Store) -> None:
    """Of the former subnet's addresses nothing is known any more but that they may have been used."""
    before = {"ranges": [[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.2"}]]}
    after = {"ranges": [[{"subnet": "10.9.0.0/25", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.2"}]]}
    add(store, "a", before)
    delete(store, "a", before)
    assert add(store, "b", after).former_macs == (b"",)
    assert add(store, "c", {"ranges": [[{"subnet": "10.8.0.0/24"}]]}).former_macs == (b"",)


def test_search_goes_around_through_all_ranges(store: Store) -> None:
    """Behind the highest used address in the last used range, then from the first range."""
    ipam = {"ranges": [[{"subnet": "10.1.0.0/29"}, {"subnet": "10.2.0.0/29"}]]}
    assert add_addresses(store, "r", ipam, args="IP=10.2.0.5") == ["10.2.0.5"]
    got = [add_addresses(store, f"c{at}", ipam)[0] for at in range(9)]
    assert got == [f"10.2.0.{last}" for last in (6,)] + [f"10.1.0.{last}" for last in range(2, 7)] + [
        f"10.2.0.{last}" for last in (2, 3, 4)
    ]


def test_a_second_add_of_a_live_attachment_is_refused(store: Store) -> None:
    """With the reference's sentence; another interface of that container is another attachment."""
    add(store, "x1", SMALL)
    error = fails(store, "x1", SMALL)
    assert error.msg == (
        "failed to allocate for range 0: 10.9.0.2 has been allocated to x1, duplicate allocation is not allowed"
    )
    assert add_addresses(store, "x1", SMALL, ifname="eth1") == ["10.9.0.3"]


def test_a_requested_address_is_given_even_beside_another(store: Store) -> None:
    """The reference does not look for duplicates then."""
    add(store, "x1", SMALL)
    assert add_addresses(store, "x1", SMALL, args="IP=10.9.0.5/29") == ["10.9.0.5"]
    delete(store, "x1", SMALL)
    assert leased(store) == {}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("10.9.0.1", "failed to allocate for range 0: requested ip 10.9.0.1 is subnet's gateway"),
        (
            "10.9.0.2",
            "failed to allocate for range 0: "
            "requested IP address 10.9.0.2 is not available in range set 10.9.0.1-10.9.0.6",
        ),
        (
            "10.9.0.4",
            "failed to allocate for range 0: "
            "requested IP address 10.9.0.4 is not available in range set 10.9.0.1-10.9.0.6",
        ),
        ("10.7.0.1", "failed to allocate all requested IPs: 10.7.0.1"),
    ],
)
def test_requested_addresses_that_cannot_be_had(store: Store, wanted: str, message: str) -> None:
    """Gateway, leased, excluded, in no range: the reference's sentences, and nothing is leased."""
    ipam = {**DUAL, "exclude": ["10.9.0.4"]}
    add(store, "x1", ipam)
    assert fails(store, "b", ipam, args=f"IP={wanted}").msg == message
    assert set(leased(store).values()) == {"x1"}


def test_each_set_takes_one_requested_address(store: Store) -> None:
    """The rest is an error that names them all."""
    assert add_addresses(store, "a", DUAL, runtimeConfig={"ips": ["fd00::5", "10.9.0.6"]}) == ["10.9.0.6", "fd00::5"]
    error = fails(store, "b", DUAL, runtimeConfig={"ips": ["10.9.0.4", "10.9.0.5", "10.7.0.1"]})
    assert error.msg == "failed to allocate all requested IPs: 10.9.0.5 10.7.0.1"
    assert "b" not in leased(store).values()


def test_a_full_pool_says_so_and_the_other_set_keeps_nothing(store: Store) -> None:
    """All or nothing over several sets; STATUS tells it beforehand."""
    ipam = {"ranges": [[{"subnet": "fd00::/64"}], [{"subnet": "10.9.0.0/30"}]]}
    plugin.status(call(), netconf(ipam, command="STATUS"), store)
    add(store, "a", ipam)
    error = fails(store, "b", ipam)
    assert (error.code, error.msg) == (
        Code.EXHAUSTED,
        "failed to allocate for range 1: no IP addresses available in range set: 10.9.0.1-10.9.0.2",
    )
    assert set(leased(store).values()) == {"a"}
    with pytest.raises(CniError) as caught:
        plugin.status(call(), netconf(ipam, command="STATUS"), store)
    assert caught.value.code == Code.NOT_AVAILABLE
    delete(store, "a", ipam)
    plugin.status(call(), netconf(ipam, command="STATUS"), store)


def test_pools_are_told_apart_by_network_and_data_directory(store: Store) -> None:
    """The same range can be in two of them."""
    assert add_addresses(store, "a", SMALL) == ["10.9.0.2"]
    assert add_addresses(store, "b", {**SMALL, "dataDir": "/nonexistent/other"}) == ["10.9.0.2"]
    assert add_addresses(store, "c", SMALL, name="net2") == ["10.9.0.2"]
    assert add_addresses(store, "d", {**SMALL, "dataDir": "/nonexistent/other/"}) == ["10.9.0.3"]


def test_dns_comes_from_resolv_conf(store: Store, tmp_path: Path) -> None:
    """The file is parsed; a missing one is an error and leases nothing."""
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 1.1.1.1\n")
    assert add(store, "a", {**SMALL, "resolvConf": str(file)}).dns == Dns(nameservers=("1.1.1.1",))
    error = fails(store, "b", {**SMALL, "resolvConf": "/nonexistent/file"})
    assert error.msg == "ipam.resolvConf: open /nonexistent/file: no such file or directory"
    assert set(leased(store).values()) == {"a"}


@pytest.mark.parametrize(
    "config",
    [{"ranges": [[{"subnet": "rubbish"}]]}, {"ranges": "rubbish"}, {}, {**SMALL, "resolvConf": "/nonexistent/file"}],
)
def test_delete_releases_whatever_the_config_says_by_now(store: Store, config: dict[str, Any]) -> None:
    """Only network and data directory matter; repeating it, or an unknown container, is success."""
    add(store, "a", SMALL)
    for _ in range(2):
        delete(store, "a", config)
    delete(store, "never", config)
    assert leased(store) == {}


def test_delete_of_an_old_version_with_two_sets(store: Store) -> None:
    """ADD refuses it below 0.3.0, DEL releases."""
    two = {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}
    add(store, "a", two)
    plugin.delete(call("a", command="DEL"), netconf(two, version="0.2.0", command="DEL"), store)
    assert leased(store) == {}


def test_check_wants_a_lease(store: Store) -> None:
    """Of this container and interface; the reference's sentence."""
    add(store, "a", SMALL)
    plugin.check(call("a", command="CHECK"), netconf(SMALL, command="CHECK"), store)
    with pytest.raises(CniError, match="host-local: Failed to find address added by container b") as caught:
        plugin.check(call("b", command="CHECK"), netconf(SMALL, command="CHECK"), store)
    assert caught.value.code == Code.BROKEN


def test_a_pool_whose_ranges_changed_is_used_up_all_the_same(store: Store) -> None:
    """Released addresses of a former subnet are found again when nothing else is left."""
    for at in range(5):
        add(store, f"old{at}", SMALL)
    for at in range(5):
        delete(store, f"old{at}", SMALL)
    wider = {"ranges": [[{"subnet": "10.9.0.0/28", "rangeEnd": "10.9.0.7"}]]}
    got = {add_addresses(store, f"new{at}", wider)[0] for at in range(6)}
    assert got == {f"10.9.0.{last}" for last in range(2, 8)}


def test_a_released_address_that_is_excluded_since_is_not_given_again(store: Store) -> None:
    """Neither by rest nor to its former owner."""
    for at in range(5):
        add(store, f"c{at}", SMALL)
    delete(store, "c0", SMALL)
    delete(store, "c1", SMALL)
    now = {**SMALL, "exclude": ["10.9.0.2"]}
    assert add_addresses(store, "c0", now) == ["10.9.0.3"]


def test_release_by_address_and_listing(store: Store) -> None:
    """What the command line shows and does."""
    add(store, "a", DUAL)
    add(store, "b", DUAL, name="net2")
    assert store.leases.by_subnet() == (
        ("net1", "/nonexistent", "10.9.0.0/29", 1),
        ("net1", "/nonexistent", "fd00::/125", 1),
        ("net2", "/nonexistent", "10.9.0.0/29", 1),
        ("net2", "/nonexistent", "fd00::/125", 1),
    )
    address = store.leases.all("net1")[0].address
    assert [each.network for each in store.leases.release_address(address, "net1")] == ["net1"]
    assert [(each.network, str(each.address)) for each in store.leases.all()] == [
        ("net1", "fd00::2"),
        ("net2", "10.9.0.2"),
        ("net2", "fd00::2"),
    ]
