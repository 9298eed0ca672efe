"""Certificates are renewed while clients live, in place as programs that renew them do it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from netns_fixtures import Etcd, wait_until
from netns_fixtures.etcd_tls import Authority
from pycni.etcd import requests
from pycni.etcd.mirror import Mirror
from tests.etcd.place import conf_of, grpc_client


def test_authority_and_certificates_are_renewed(cluster: Callable[..., Etcd], tmp_path: Path) -> None:
    """etcd has another authority by now, and this host's files are renewed: a client and a mirror that were made with
    the former ones go on with them by themselves."""
    etcd = cluster(tls=True)
    conf = conf_of(etcd)
    new = Authority(tmp_path / "new")
    with grpc_client(conf) as client, grpc_client(conf) as other:
        mirror = Mirror(other, "/x/", lambda keys: None)
        mirror.start()
        wait_until(mirror.synced.is_set, 5.0)
        assert client.get("/x/a") is None
        etcd.stop()
        etcd.authority = etcd.members[0].authority = new
        etcd.start()
        wait_until(lambda: mirror.stale_since > 0, 5.0)
        for source, place in zip((new.ca, *new.client("host1")), (conf.ca, conf.cert, conf.key), strict=True):
            shutil.copy(source, place)
        client.txn(requests.txn([], [requests.put("/x/a", b"1")]), 10.0)
        wait_until(lambda: mirror.get("/x/a") is not None, 15.0, "the mirror follows again")
        mirror.stop()


def test_certificates_that_stay(cluster: Callable[..., Etcd]) -> None:
    """While etcd is away, the client of unchanged files is kept, and connects by itself again."""
    etcd = cluster(tls=True)
    with grpc_client(conf_of(etcd)) as client:
        assert client.get("/x/a") is None
        made = client.callers[0].client(1.0)  # type: ignore[attr-defined]
        etcd.stop()
        assert isinstance(client.statuses()[0][1], str)
        etcd.start()
        client.txn(requests.txn([], [requests.put("/x/a", b"1")]), 10.0)
        assert client.callers[0].client(1.0) is made  # type: ignore[attr-defined]
