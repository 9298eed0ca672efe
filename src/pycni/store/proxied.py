"""Where the ports lead that the userland proxy serves: no rule says it, and a new proxy has to be told.

Rows go with the record of their attachment, as those of `host_ports` (schema.py).
"""

from __future__ import annotations

from pycni.cni.names import Attachment
from pycni.cni.value import Value
from pycni.store.host_ports import PART

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycni.store.db import Database


class Proxied(Value):
    """Host ports `low` … `high` of an attachment, `low` + n to `port` + n."""

    family: int  # 4 or 6, of the host's side
    proto: str
    host_ip: str  # "": all of the family
    low: int
    high: int
    address: str  # of the container, of either family
    port: int
    proxy_protocol: bool


_FIELDS = ", ".join(Proxied.__annotations__)
_OWNER = "network, container_id, ifname"
PUT = f"INSERT INTO proxied_ports ({_OWNER}, {_FIELDS}) VALUES ({', '.join('?' * 11)})"
FORGET = "DELETE FROM proxied_ports WHERE network = ? AND container_id = ? AND ifname = ?"
ALL = f"SELECT {_OWNER}, {_FIELDS} FROM proxied_ports ORDER BY {_OWNER}, family, proto, low"


def put(store: Database, attachment: Attachment, ports: Iterable[Proxied]) -> None:
    """*ports* are what the proxy serves for *attachment*, in place of all before."""
    owner = attachment.network, attachment.container_id, attachment.ifname
    with store.transaction():
        store.run(FORGET, owner)
        for one in ports:
            store.run(PUT, (*owner, *one.as_dict().values()))


def read_all(store: Database) -> dict[Attachment, list[Proxied]]:
    """What the proxy is to serve, by attachment."""
    out: dict[Attachment, list[Proxied]] = {}
    for row in store.query(ALL):
        attachment = Attachment(row[0], row[1], row[2], PART)
        out.setdefault(attachment, []).append(Proxied(*row[3:]).replace(proxy_protocol=row[10] == 1))
    return out
