"""What the tuning plugin reads from its configuration: keys of sysctls above all, which must not leave net/."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.cni.conf import parse_conf
from pycni.cni.env import Call
from pycni.cni.errors import CniError
from pycni.plugins.tuning.conf import TuningConf, sysctl_key


def parse(text: str = "", cni_args: str = "", ifname: str = "eth0", **keys: Any) -> TuningConf:
    conf = text or json.dumps({"cniVersion": "1.1.0", "name": "net", "type": "tuning", **keys})
    call = Call(command="ADD", container_id="c1", netns="/n", ifname=ifname, args=cni_args)
    return TuningConf.parse(parse_conf(conf.encode(), "ADD"), call)


@pytest.mark.parametrize(
    ("written", "ifname", "key"),
    [
        ("net.core.somaxconn", "eth0", "net/core/somaxconn"),
        ("net/core/somaxconn", "eth0", "net/core/somaxconn"),
        ("/net//core/somaxconn", "eth0", "net/core/somaxconn"),
        ("net.ipv4.conf.IFNAME.arp_filter", "eth0", "net/ipv4/conf/eth0/arp_filter"),
        ("net.ipv4.conf.IFNAME.arp_filter", "eth0.100", "net/ipv4/conf/eth0.100/arp_filter"),
        ("net/ipv4/conf/eth0.100/arp_filter", "eth0", "net/ipv4/conf/eth0.100/arp_filter"),
        ("net.ipv4.conf.eth0/100.arp_filter", "eth0", "net/ipv4/conf/eth0.100/arp_filter"),
        ("net.ipv4.conf.IFNAME.IFNAME", "eth0", "net/ipv4/conf/eth0/IFNAME"),
    ],
)
def test_both_spellings_name_the_same_key(written: str, ifname: str, key: str) -> None:
    """The first separator decides; the interface's name is put in once, whatever it looks like."""
    assert sysctl_key(written, ifname) == key


@pytest.mark.parametrize(
    "written",
    ["kernel.panic", "net", "net.", "", "kernel/net/x", "net/../kernel/panic", "net/ipv4/../../kernel/panic",
     "net...kernel", "netx.core.y", "/", "net/./core", "../net/core/x", "IFNAME/core"],
)  # fmt: skip
def test_keys_outside_of_net_are_refused(written: str) -> None:
    """Code 7, whatever way out of net/ is tried; dots between dots are no parents, as they separate."""
    if written == "net...kernel":
        assert sysctl_key(written, "eth0") == "net/kernel"
        return
    with pytest.raises(CniError, match="invalid net sysctl key") as refused:
        sysctl_key(written, "eth0")
    assert refused.value.code == 7


@given(written=st.text("net./IFNAME\\x00.. k", max_size=40), ifname=st.text("e.0-:", min_size=1, max_size=15))
def test_no_key_leaves_net(written: str, ifname: str) -> None:
    """Whatever is written, and however the interface is called: below net/, or refused."""
    if ifname in (".", ".."):
        return  # no interface has such a name (dev_valid_name)
    try:
        key = sysctl_key(written, ifname)
    except CniError:
        return
    parts = key.split("/")
    assert parts[0] == "net" and len(parts) > 1
    assert not {"", ".", ".."} & set(parts)


@pytest.mark.parametrize(
    "sysctl",
    ['{"net.core.x": "1", "net.core.x": "2"}', '{"net.core.x": "1", "net/core/x": "1"}'],
)
def test_doubled_keys_are_refused(sysctl: str) -> None:
    """Twice the same key, in JSON that would silently take the last one, or in two spellings."""
    with pytest.raises(CniError, match="duplicated sysctl keys are not allowed"):
        parse(f'{{"cniVersion": "1.1.0", "name": "net", "type": "tuning", "SysCtl": {sysctl}}}')


def test_other_doubled_keys_are_none_of_ours() -> None:
    """As the reference reads them: the last one counts."""
    text = (
        '{"cniVersion": "1.1.0", "name": "net", "x": {"a": 1, "a": 2}, "mtu": 1, "mtu": 1400, "sysctl": {"net.a": "1"}}'
    )
    assert parse(text).mtu == 1400


@pytest.mark.parametrize("value", [1, True, None, "", "  ", "a\x00b", ["1"], {"a": "1"}])
def test_values_of_sysctls_are_texts(value: Any) -> None:
    """As the reference has it: a number needs its quotes."""
    with pytest.raises(CniError, match="a sysctl's value is a string that is not empty"):
        parse(sysctl={"net.core.somaxconn": value})


def test_arguments_are_put_over_the_list() -> None:
    """Key by key, in either spelling; also where the list has no sysctl at all."""
    listed = {"net.core.a": "1", "net.core.b": "2"}
    asked = {"sysctl": {"net/core/b": "3", "net.core.c": "4"}, "promisc": True, "allmulti": False, "txQLen": 0}
    conf = parse(sysctl=listed, mtu=1400, args={"cni": asked})
    assert {s.key: s.value for s in conf.sysctls} == {"net/core/a": "1", "net/core/b": "3", "net/core/c": "4"}
    assert (conf.mtu, conf.promiscuous, conf.all_multicast, conf.tx_queue) == (1400, True, False, 0)
    assert parse(args={"cni": {"sysctl": {"net.core.a": "1"}}}).sysctls[0].key == "net/core/a"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"mac": "zz"}, "invalid MAC address"),
        ({"mac": "01:00:5e:00:00:01"}, "not a unicast MAC address"),
        ({"mtu": 65536}, "mtu is 65536"),
        ({"promisc": 1}, "promisc is 1"),
        ({"allmulti": "yes"}, "allmulti"),
        ({"txQLen": -1}, "txQLen is -1"),
        ({"dataDir": "run"}, "dataDir"),
        ({"dataDir": "/run/../etc"}, "dataDir"),
        ({"args": {"cni": {"mtu": "1400"}}}, "args.cni.mtu"),
    ],
)
def test_wrong_values_are_named(keys: dict[str, Any], said: str) -> None:
    """Key, value and what is allowed, code 7."""
    with pytest.raises(CniError, match=said.replace(".", "\\.")) as refused:
        parse(**keys)
    assert refused.value.code == 7


def test_an_empty_list_changes_nothing() -> None:
    """What podman's default list has."""
    assert not parse().changes
    assert not parse(mtu=0, mac="", promisc=False, sysctl={}).changes
    assert parse(allmulti=False).changes
    assert parse(txQLen=0).changes
