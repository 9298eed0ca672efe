"""What a host keeps about the networks it takes part in, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pycni.cni.errors import CniError
from pycni.ipam.etcd_conf import parse_etcd
from pycni.ipam.etcd_state import HostState
from pycni.plugins.overlay import site
from pycni.plugins.overlay.site import Joined
from tests.unit.test_overlay_conf import ETCD, came


def joined(network: str = "net", **changes: Any) -> Joined:
    fields: dict[str, Any] = {"network": network, "mode": "routed", "vni": 4097, "port": 4789, "mtu": 1450}
    fields |= {"vxlan": "vxlan4097", "bridge": "ovl4097", "uplink": "eth0", "local": "192.0.2.1"}
    fields |= {"node": "ab" * 16, "connection": "{}", "prefix": "/p", "subnets": ("10.1.0.0/16",)}
    return Joined(**{**fields, "addresses": ("10.1.0.64/32",), **changes})


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    """Each network by its name, in whatever cluster; one that was left, or is in no etcd, is not among those to be
    followed; a file that was half written, is damaged, or from another version is as none."""
    first, second = HostState(str(tmp_path), "/p"), HostState(str(tmp_path), "/q")
    kept = joined()
    site.keep_joined(first, kept)
    site.keep_joined(first, joined("was", left=True))
    site.keep_joined(second, joined("other.net", prefix="/q"))
    site.keep_joined(HostState(str(tmp_path), site.WITHOUT_ETCD), joined("plain", connection=""))
    assert site.read_joined(first, "net") == kept
    assert site.read_joined(second, "net") is None
    assert [each.network for each in site.all_joined(str(tmp_path))] in (["net", "other.net"], ["other.net", "net"])
    assert [each.network for each in site.all_joined(str(tmp_path), left=True)] == ["was"]
    found = site.find_joined(str(tmp_path), "plain")
    assert found is not None
    assert found.connection == ""
    whole = Path(first.directory, "overlay-net")
    Path(first.directory, "overlay-net.123.abcd").write_text(whole.read_text())
    assert len(site.all_joined(str(tmp_path))) == 2
    for damage in ("{", "[]", '{"network": "net", "colour": 7}', "", "null"):
        whole.write_text(damage)
        assert site.read_joined(first, "net") is None
        assert site.find_joined(str(tmp_path), "net") is None
    site.forget_joined(first, "net")
    site.forget_joined(first, "net")


def test_notes_are_of_this_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision, 0 where there is none."""
    monkeypatch.setattr(site, "DIRECTORY", str(tmp_path / "run"))
    assert site.noted("net") == 0
    site.note("net", 71)
    assert site.noted("net") == 71
    site.forget_note("net")
    site.forget_note("net")
    assert site.noted("net") == 0


@pytest.mark.parametrize("mac", ["Derived", "02:00", "01:00:5e:00:00:01", 5])
def test_ipam_refuses_what_is_no_mac(mac: object) -> None:
    """With the key, before anything is taken."""
    conf = came(etcd=None, ipam={"type": "pycni-ipam", "subnet": "10.1.0.0/16", "etcd": {**ETCD, "mac": mac}})
    with pytest.raises(CniError, match=r"ipam\.etcd\.mac is"):
        parse_etcd(conf)
