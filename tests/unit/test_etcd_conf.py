"""The `etcd` object of a config: what it says, and what is refused before anything goes out."""

from __future__ import annotations

from typing import Any

import pytest

from pycni.cni.conf import Keys
from pycni.cni.errors import CniError, Code
from pycni.etcd.conf import Endpoint, EtcdConf

TLS = {"ca": "/etc/ca.crt", "cert": "/etc/h.crt", "key": "/etc/h.key"}


def parse(**keys: Any) -> EtcdConf:
    return EtcdConf.parse(Keys(keys, "ipam.etcd"))


def test_endpoints() -> None:
    """Names and addresses of both families; the port is 2379 unless said."""
    conf = parse(
        endpoints=["https://etcd1.example:1234", "https://10.0.0.1/", "https://[fd00::1]:99", "https://[::1]"], **TLS
    )
    assert conf.endpoints == (
        Endpoint("etcd1.example", 1234, True),
        Endpoint("10.0.0.1", 2379, True),
        Endpoint("fd00::1", 99, True),
        Endpoint("::1", 2379, True),
    )
    assert [each.target for each in conf.endpoints][2:] == ["[fd00::1]:99", "[::1]:2379"]
    assert str(conf.endpoints[0]) == "https://etcd1.example:1234"
    assert parse(endpoints=["http://a"]).prefix == "/pycni"
    assert parse(endpoints=["http://a"], prefix="/x/y/").prefix == "/x/y"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "ipam.etcd.endpoints is missing"),
        ({"endpoints": []}, "ipam.etcd.endpoints is missing"),
        ({"endpoints": ["10.0.0.1:2379"]}, r"ipam.etcd.endpoints\[0\] .* begins with http"),
        ({"endpoints": ["http://a", "ftp://a"]}, r"endpoints\[1\]"),
        ({"endpoints": ["http://fd00::1"]}, r"endpoints\[0\]"),
        ({"endpoints": ["http://a:0"]}, "1..65535"),
        ({"endpoints": ["http://a:70000"]}, "1..65535"),
        ({"endpoints": ["http://a:x"]}, "1..65535"),
        ({"endpoints": ["http://[::1]x"]}, "1..65535"),
        ({"endpoints": ["http://user@a"]}, r"endpoints\[0\]"),
        ({"endpoints": ["http://"]}, r"endpoints\[0\]"),
        ({"endpoints": ["http://a"], "prefix": "pycni"}, "ipam.etcd.prefix"),
        ({"endpoints": ["http://a"], "prefix": "/"}, "ipam.etcd.prefix"),
        ({"endpoints": ["http://a"], "prefix": "/a//b"}, "ipam.etcd.prefix"),
        ({"endpoints": ["http://a"], "prefix": "/ä"}, "ipam.etcd.prefix"),
        ({"endpoints": ["http://a", "https://b"], **TLS}, "mixes http and https"),
        ({"endpoints": ["http://a"], "ca": "/x"}, "would not be used: write https"),
        ({"endpoints": ["https://a"]}, "ipam.etcd.ca is missing"),
        ({"endpoints": ["https://a"], "ca": "/x", "cert": "/y"}, "ipam.etcd.key is missing"),
        ({"endpoints": ["https://a"], "ca": "/x", "key": "/y"}, "ipam.etcd.cert is missing"),
        ({"endpoints": ["https://a"], "ca": "x"}, "not an absolute path"),
        ({"endpoints": ["http://a"], "user": "u"}, "ipam.etcd.password is missing"),
        ({"endpoints": ["http://a"], "password": "p"}, "ipam.etcd.user is missing"),
        ({"endpoints": "http://a"}, "not a list"),
    ],
)
def test_refusals(keys: dict[str, Any], message: str) -> None:
    """Every refusal is code 7 and names the key; half a security configuration is never taken for none."""
    with pytest.raises(CniError, match=message) as failure:
        parse(**keys)
    assert failure.value.code == Code.INVALID_CONFIG
