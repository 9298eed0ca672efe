"""DEL of the portmap plugin: by the record alone, whatever the runtime still knows of the container."""

from __future__ import annotations

from pycni.cni.errors import not_released
from pycni.cni.names import Attachment
from pycni.store import open_store
from pycni.store.host_ports import PART

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.store import Store
    from pycni.store.attachments import Record


def delete(call: Call, netconf: NetConf) -> None:
    """DEL: mappings are in the record, not in the call; an attachment without a record has none."""
    with open_store() as store:
        record = store.attachments.get(Attachment(netconf.name, call.container_id, call.ifname, PART))
        if record is not None:
            release_record(store, record)


def release_record(store: Store, record: Record, executable: str = "") -> None:
    """Take everything of *record* away, then the record. CniError 999 names all that could not be; *executable* is of
    no use here.

    First what only the rules make harmless (route_localnet), then the rules, then the flows that go on without them,
    last the ports: nobody gets one before all that was sent to it has ended.
    """
    from pycni.portmap import withdraw

    failures: list[str] = []
    withdraw.restore_settings(store, record, failures)
    withdraw.remove_rules(store, record, failures)
    withdraw.end_flows(record, failures)
    withdraw.release_ports(record, failures)
    if failures:
        raise not_released(record.attachment.owner, failures)
    store.attachments.remove(record)
