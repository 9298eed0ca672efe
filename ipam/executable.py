"""`pycni-ipam` and `host-local` as executables: the commands of pycni.ipam.plugin on the state of this host."""

from __future__ import annotations

from pycni.ipam import backend
from pycni.store import open_store, open_usable_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result


def add(call: Call, conf: NetConf) -> Result:
    with open_store() as store:
        result: Result = backend(conf).add(call, conf, store)
        return result


def delete(call: Call, conf: NetConf) -> None:
    with open_store() as store:
        backend(conf).delete(call, conf, store)


def check(call: Call, conf: NetConf) -> None:
    with open_store() as store:
        backend(conf).check(call, conf, store)


def gc(call: Call, conf: NetConf) -> None:
    with open_store() as store:
        backend(conf).gc(call, conf, store)


def status(call: Call, conf: NetConf) -> None:
    with open_usable_store() as store:
        backend(conf).status(call, conf, store)
