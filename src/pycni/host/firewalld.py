"""firewalld by D-Bus: which zone the addresses of a container belong to.

Its forward chain drops what no zone accepts, and an accept in a table of ours cannot outvote that: so firewalld itself
is told, as the reference plugin does, with sources of the runtime configuration. They are lost when firewalld reloads
or restarts; the agent and CHECK notice.
"""

from __future__ import annotations

from pycni.change.zones import TrustSources
from pycni.cni.errors import CniError, Code
from pycni.host.program import find
from pycni.host.system_bus import BusError, SystemBus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.host.apply import Kernel

NAME, PATH, ZONE = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1.zone"
ALREADY, ABSENT = "ZONE_ALREADY_SET", ("UNKNOWN_SOURCE", "NOT_ENABLED", "INVALID_ZONE")  # firewall/errors.py


def running() -> bool:
    """Whether firewalld runs here. The bus is asked only where firewalld is installed: every ADD comes by."""
    if find("firewalld") is None:
        return False
    try:
        Firewalld().close()
    except (CniError, OSError):
        return False
    return True


class Firewalld:
    """A connection to a firewalld that runs: CniError 103 where it does not, OSError where there is no system bus."""

    def __init__(self) -> None:
        self._bus = SystemBus()
        try:
            if not self._bus.has_owner(NAME):
                raise CniError(
                    Code.FIREWALL,
                    "firewalld is not running",
                    'systemctl start firewalld, or drop "backend": "firewalld"',
                )
        except BaseException:
            self._bus.close()
            raise

    def close(self) -> None:
        self._bus.close()

    def add(self, zone: str, sources: Iterable[str]) -> None:
        """Put the addresses into *zone*; those that are there already stay. CniError 103 in firewalld's words."""
        for source in map(as_source, sources):
            try:
                self._call("addSource", zone, source)
            except BusError as failure:
                if ALREADY not in failure.message:
                    raise CniError(
                        Code.FIREWALL,
                        f"failed to add the address {source} to {zone} zone: {failure.message}",
                        "firewall-cmd --get-zones lists the zones, --get-zone-of-source=ADDRESS says who has it",
                    ) from failure

    def remove(self, zone: str, sources: Iterable[str]) -> None:
        """Take the addresses out of *zone*; what is not there is a success. CniError 103 in firewalld's words."""
        for source in map(as_source, sources):
            try:
                self._call("removeSource", zone, source)
            except BusError as failure:
                if not any(word in failure.message for word in ABSENT):
                    raise CniError(
                        Code.FIREWALL, f"failed to remove the address {source} from {zone} zone: {failure.message}"
                    ) from failure

    def missing(self, zone: str, sources: Iterable[str]) -> tuple[str, ...]:
        """Which of the addresses are not in *zone*, in words."""
        return tuple(
            f"failed to find the address {source} in {zone} zone"
            for source in map(as_source, sources)
            if not self._is_in(zone, source)
        )

    def _is_in(self, zone: str, source: str) -> bool:
        try:
            return self._call("querySource", zone, source) == (True,)
        except BusError:
            return False  # no such zone

    def _call(self, method: str, zone: str, source: str) -> tuple[object, ...]:
        return self._bus.call(NAME, PATH, ZONE, method, zone, source)


def as_source(address: str) -> str:
    """An address as the reference plugin writes it: "10.1.0.5" → "10.1.0.5/32"."""
    return f"{address}/{128 if ':' in address else 32}"


def missing(zone: str, sources: Iterable[str]) -> tuple[str, ...]:
    """What Firewalld.missing says. Nothing where no *zone* was asked for, nor where firewalld does not run: what it was
    told is gone with it then, and so is what it dropped."""
    if not zone:
        return ()
    try:
        firewalld = Firewalld()
    except (CniError, FileNotFoundError, ConnectionRefusedError):
        return ()
    try:
        return firewalld.missing(zone, sources)
    finally:
        firewalld.close()


def add(zone: str, sources: Iterable[str]) -> None:
    """Firewalld.add in a connection of its own."""
    firewalld = open_firewalld()
    try:
        firewalld.add(zone, sources)
    finally:
        firewalld.close()


def remove(zone: str, sources: Iterable[str]) -> None:
    """Firewalld.remove in a connection of its own; where firewalld does not run, its sources are gone with it."""
    try:
        firewalld = Firewalld()
    except (CniError, FileNotFoundError, ConnectionRefusedError):
        return
    try:
        firewalld.remove(zone, sources)
    finally:
        firewalld.close()


def open_firewalld() -> Firewalld:
    """As Firewalld(), with one error, CniError 103, for all reasons why it cannot be asked."""
    try:
        return Firewalld()
    except OSError as failure:
        raise CniError(
            Code.FIREWALL,
            f"firewalld cannot be asked: {failure.strerror or failure}",
            "it answers on the D-Bus system bus: is dbus-daemon or dbus-broker running?",
        ) from failure


def _trust(_: Kernel, op: TrustSources) -> None:
    add(op.zone, op.sources)


ACTS = {TrustSources: _trust}
