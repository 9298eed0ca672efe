"""What the store keeps of ports that the userland proxy serves."""

from __future__ import annotations

from pathlib import Path

from pycni.cni.names import Attachment
from pycni.store import Record, open_store, proxied
from pycni.store.proxied import Proxied

ONE = Attachment("net", "c1", "eth0", "portmap")
TWO = Attachment("net", "c2", "eth0", "portmap")
WEB = Proxied(6, "tcp", "", 8080, 8089, "10.1.0.2", 80, proxy_protocol=True)
DNS = Proxied(6, "udp", "::1", 53, 53, "10.1.0.2", 53, proxy_protocol=False)


def test_ports_are_kept_by_attachment_until_others_take_their_place(tmp_path: Path) -> None:
    """Each field comes back as it was, the truth values as such: the proxy's protocol knows no 1."""
    with open_store(str(tmp_path / "db")) as store:
        proxied.put(store, ONE, [WEB, DNS])
        proxied.put(store, TWO, [DNS])
        assert proxied.read_all(store) == {ONE: [WEB, DNS], TWO: [DNS]}
        assert [each.proxy_protocol for each in proxied.read_all(store)[ONE]] == [True, False]
        assert type(proxied.read_all(store)[ONE][0].proxy_protocol) is bool
        proxied.put(store, ONE, [DNS])
        proxied.put(store, TWO, [])
        assert proxied.read_all(store) == {ONE: [DNS]}


def test_they_go_with_the_record_of_the_published_ports(tmp_path: Path) -> None:
    """Not with that of the interface itself, nor another container's."""
    link = Record(Attachment("net", "c1", "eth0"), "bridge")
    records = [link, Record(ONE, "portmap"), Record(TWO, "portmap")]
    with open_store(str(tmp_path / "db")) as store:
        for record in records:
            store.attachments.begin(record)
        proxied.put(store, ONE, [WEB])
        proxied.put(store, TWO, [DNS])
        store.attachments.remove(link)
        assert set(proxied.read_all(store)) == {ONE, TWO}
        store.attachments.remove(records[1])
        assert proxied.read_all(store) == {TWO: [DNS]}
