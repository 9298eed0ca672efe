"""`static` as an executable: the commands of pycni.ipam.static, which need no state."""

from __future__ import annotations

from pycni.ipam import static

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result


def add(call: Call, conf: NetConf) -> Result:
    return static.add(call, conf, None)


def delete(call: Call, conf: NetConf) -> None:
    static.delete(call, conf, None)


def check(call: Call, conf: NetConf) -> None:
    static.check(call, conf, None)


def gc(call: Call, conf: NetConf) -> None:
    static.gc(call, conf, None)


def status(call: Call, conf: NetConf) -> None:
    static.status(call, conf, None)
