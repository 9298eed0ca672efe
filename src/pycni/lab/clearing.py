"""What a network that goes, or becomes another, leaves where CNI has no call for it: bridges, a record in etcd.

DEL leaves both, since the next container may need them. A network of another name may have the same addresses: beside
the old bridge the host would send its packets there, and etcd would refuse it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from pycni.lab.running import RunningLab

# Only without ports: who attached something by hand keeps what it is attached to.
_REMOVE_IDLE = """for name do
    [ -d "/sys/class/net/$name/brif" ] && [ -z "$(ls "/sys/class/net/$name/brif")" ] && ip link del "$name"
done"""

Conflist = Mapping[str, Any]


def remove_bridges(lab: RunningLab, before: Iterable[Conflist]) -> None:
    """Those of the networks *before* on every host, but for what a network of the lab still calls its own."""
    kept = {_bridge(each) for each in lab.state["conflists"].values() if each not in before}
    names = sorted({_bridge(each) for each in before} - kept - {""})
    for machine in lab.machines.values() if names else ():
        if machine.role == "host" and machine.holder.alive():
            lab.run(machine.name, None, ["/bin/sh", "-c", _REMOVE_IDLE, "sh", *names], check=False)


def forget_records(lab: RunningLab, before: Iterable[Conflist]) -> None:
    """Of the networks *before*, whose configuration the hosts still have. One that a host takes part in stays, and
    whoever needs its addresses is told so by the plugin."""
    names = [each["name"] for each in before if "etcd" in each["plugins"][0]]
    alive = [each.name for each in lab.machines.values() if each.role == "host" and each.holder.alive()]
    for name in names if alive else ():
        lab.run(alive[0], None, [sys.executable, "-m", "pycni", "networks", "remove", name], check=False)


def _bridge(conflist: Conflist) -> str:
    """Of a bridge network; an overlay's goes with its last container. "" for none."""
    plugin = conflist["plugins"][0]
    return str(plugin.get("bridge", "")) if plugin["type"] == "pycni-bridge" else ""
