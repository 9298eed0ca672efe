from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from pycni.cni.conf import NetConf


def backend(conf: NetConf) -> ModuleType:
    """The module with the commands (add, delete, check, gc, status, each with Call, NetConf and Store), by where leases
    are kept: in this host's store, or, where `ipam` has an `etcd` object, in etcd for a whole cluster."""
    if conf.ipam.has("etcd"):
        from pycni.ipam import etcd_plugin

        return etcd_plugin
    from pycni.ipam import plugin

    return plugin
