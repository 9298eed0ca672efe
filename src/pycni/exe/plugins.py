"""The plugins there are: names, protocol versions, where their commands live. Nothing is imported before its use."""

from __future__ import annotations

import sys

from pycni.cni.value import Value
from pycni.cni.versions import SUPPORTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.cni.result import Result
    from pycni.store import Store
    from pycni.store.attachments import Record

_FUNCTIONS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "gc", "STATUS": "status"}


class Plugin(Value):
    """One plugin; `drop_in` is the reference's name for it."""

    name: str
    drop_in: str
    module: str  # with add, delete, check, gc and status, each (Call, NetConf); add returns the result
    makes_link: bool = False  # DEL removes a host link that is named after the attachment
    releases: bool = False  # it has a release_record(Store, Record, executable) of its own, beside `delete`
    split: bool = False  # a package that has a module of the command's name for each: a call imports only its own
    supported: tuple[str, ...] = SUPPORTED

    def run(self, call: Call, conf: NetConf) -> Result | None:
        """Carry out call.command; CniError or OSError where it fails."""
        function = _FUNCTIONS[call.command]
        name = self.module_of(function)
        __import__(name)  # importlib would bring `warnings` along: half a millisecond of every call
        result: Result | None = getattr(sys.modules[name], function)(call, conf)
        return result

    def module_of(self, function: str) -> str:
        """The module that holds the command *function* ("add", "delete", …)."""
        return f"{self.module}.{function}" if self.split else self.module


PLUGINS = (
    Plugin(name="bridge", drop_in="bridge", module="pycni.plugins.bridge", makes_link=True, split=True),
    Plugin(
        name="overlay", drop_in="overlay", module="pycni.plugins.overlay", makes_link=True, releases=True, split=True
    ),
    Plugin(name="loopback", drop_in="loopback", module="pycni.plugins.loopback.plugin"),
    Plugin(name="ipam", drop_in="host-local", module="pycni.ipam.executable"),
    Plugin(name="static", drop_in="static", module="pycni.ipam.static_executable"),
    Plugin(name="portmap", drop_in="portmap", module="pycni.portmap", releases=True, split=True),
    Plugin(
        name="bandwidth",
        drop_in="bandwidth",
        module="pycni.plugins.bandwidth",
        releases=True,
        split=True,
        supported=SUPPORTED[SUPPORTED.index("0.3.0") :],  # as the reference: older results have no interfaces
    ),
    Plugin(
        name="firewall",
        drop_in="firewall",
        module="pycni.plugins.firewall",
        releases=True,
        split=True,
        supported=SUPPORTED[SUPPORTED.index("0.4.0") :],  # as the reference
    ),
    Plugin(name="tuning", drop_in="tuning", module="pycni.plugins.tuning", split=True),
    Plugin(name="ptp", drop_in="ptp", module="pycni.plugins.ptp", makes_link=True, split=True),
)


def find_plugin(executable: str) -> Plugin | None:
    """The plugin behind an executable's name: pycni-NAME, the drop-in name, or either behind a prefix and a dash."""
    for plugin in PLUGINS:
        for name in (f"pycni-{plugin.name}", plugin.drop_in):
            if executable == name or executable.endswith(f"-{name}"):
                return plugin
    return None


def release_record(store: Store, record: Record, executable: str = "") -> None:
    """Release *record* as the plugin does that wrote it; see attach.release.release_record."""
    name = "pycni.attach.release"
    for plugin in PLUGINS:
        if plugin.releases and plugin.name == record.plugin:
            name = plugin.module_of("delete")
    __import__(name)
    sys.modules[name].release_record(store, record, executable)
