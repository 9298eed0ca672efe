"""The write-ahead record of every attachment: what DEL, GC and a repeated ADD know of a call that is over or dead."""

from __future__ import annotations

from pycni.cni import json_text
from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment
from pycni.cni.value import Value
from pycni.firewall.rules import AttachmentRules, NetworkRules, PortMapping
from pycni.store.boot import own_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pycni.store.db import Database


class Record(Value):
    """An attachment as it was begun, and what it may have made.

    state: "adding" until the result stands, then "ready"; "deleting" from the start of DEL on.
    pid, pid_start: the process that wrote the state (store.boot.own_process); boot_id: the boot it ran in.
    netns_id: "device:inode" of the namespace; result: JSON, "" before commit.
    network_rules, attachment_rules: what the firewall *backend* was asked to hold.
    created: seconds since the epoch.
    """

    attachment: Attachment
    plugin: str
    state: str = "adding"
    pid: int = 0
    pid_start: int = 0
    boot_id: str = ""
    netns: str = ""
    netns_id: str = ""
    bridge: str = ""
    host_links: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    backend: str = ""
    network_rules: NetworkRules = NetworkRules("")
    attachment_rules: AttachmentRules = AttachmentRules("")
    conf: str = ""
    cni_args: str = ""
    cni_path: tuple[str, ...] = ()
    result: str = ""
    created: float = 0.0


_OWNER = ("network", "part", "container_id", "ifname")
_FIELDS = tuple(name for name in Record.__annotations__ if name != "attachment")
_LISTS = ("host_links", "addresses", "cni_path")  # JSON arrays in the table
_RULES = {"network_rules": NetworkRules, "attachment_rules": AttachmentRules}  # JSON objects
_COLUMNS = ", ".join(_OWNER + _FIELDS)
_IS_OWNER = "network = ? AND part = ? AND container_id = ? AND ifname = ?"

INSERT = f"INSERT INTO attachments ({_COLUMNS}) VALUES ({', '.join('?' * (len(_OWNER) + len(_FIELDS)))})"
UPDATE = f"UPDATE attachments SET {', '.join(f'{name} = ?' for name in _FIELDS)} WHERE {_IS_OWNER}"
COMMIT = f"UPDATE attachments SET state = 'ready', result = ? WHERE {_IS_OWNER}"
GET = f"SELECT {_COLUMNS} FROM attachments WHERE {_IS_OWNER}"
CLAIM = f"""UPDATE attachments SET state = 'deleting', pid = ?, pid_start = ?
    WHERE {_IS_OWNER} AND state = ? AND created = ?"""
REMOVE = f"DELETE FROM attachments WHERE {_IS_OWNER} AND created = ?"
COUNT = "SELECT count(*) FROM attachments WHERE network = ?"
OF_NETWORK = "SELECT EXISTS (SELECT 1 FROM attachments WHERE network = ? AND part = '')"
# A record in state "deleting" has given back its rules. The attachments of a bridge network have the same rules, so
# this ends at the first or second row but for a crowd that is being deleted.
SHARES_RULES = """SELECT EXISTS (SELECT 1 FROM attachments
    WHERE network = ?1 AND part = ?2 AND (container_id, ifname) <> (?3, ?4) AND network_rules = ?5
    AND state <> 'deleting')"""
# Ends at the first that counts, which is the first or second row but for a crowd that is being deleted.
OTHERS_ON_HOST = """SELECT EXISTS (SELECT 1 FROM attachments
    WHERE state <> 'deleting' AND (network, part, container_id, ifname) <> (?1, ?2, ?3, ?4))"""
OTHERS_WITH_RULES = f"{OTHERS_ON_HOST[:-1]} AND backend NOT IN ('', 'none'))"
OTHERS_OF_BACKEND = f"{OTHERS_ON_HOST[:-1]} AND backend = ?5)"
ON_BRIDGE = """SELECT EXISTS (SELECT 1 FROM attachments
    WHERE bridge = ?5 AND state <> 'deleting' AND (network, part, container_id, ifname) <> (?1, ?2, ?3, ?4))"""
# Only when a network's last attachment goes: one row for each way the others' networks are set up.
RULES_OF_OTHERS = """SELECT DISTINCT network_rules FROM attachments
    WHERE state <> 'deleting' AND backend NOT IN ('', 'none')
    AND (network, part, container_id, ifname) <> (?1, ?2, ?3, ?4)"""


class Attachments:
    """The records of one store. Writing methods open a transaction of their own when none is open."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def begin(self, record: Record) -> None:
        """Write *record*; CniError (ALREADY_ATTACHED) when the attachment has one.

        A record that a dead ADD left counts as well: undo what it made and remove it first.
        """
        with self._store.transaction():
            old = self.get(record.attachment)
            if old is not None:
                raise CniError(
                    Code.ALREADY_ATTACHED,
                    f"container {old.attachment.container_id} already has interface {old.attachment.ifname} "
                    f"in network {old.attachment.network}",
                    f"state {old.state}, namespace {old.netns or 'unknown'}; a DEL of it must come first",
                )
            self.insert(record)

    def insert(self, record: Record) -> None:
        """`begin` inside a transaction that has seen that the attachment has none."""
        self._store.run(INSERT, _owner(record.attachment) + _values(record))

    def update(self, record: Record) -> None:
        """Write every field of *record* over the one that stands; nothing when there is none."""
        with self._store.transaction():
            self._store.run(UPDATE, _values(record) + _owner(record.attachment))

    def commit(self, attachment: Attachment, result: str) -> None:
        """The ADD is complete: state "ready", and its result as JSON text."""
        with self._store.transaction():
            self._store.run(COMMIT, (result, *_owner(attachment)))

    def claim(self, record: Record) -> bool:
        """Take *record* over to delete it, unless somebody changed or replaced it since it was read."""
        values = (*own_process(), *_owner(record.attachment), record.state, record.created)
        with self._store.transaction():
            return self._store.run(CLAIM, values) > 0

    def remove(self, record: Record) -> bool:
        """Forget the attachment, unless the record is another's by now; whether it was there."""
        with self._store.transaction():
            return self._store.run(REMOVE, (*_owner(record.attachment), record.created)) > 0

    def get(self, attachment: Attachment) -> Record | None:
        rows = self._store.query(GET, _owner(attachment))
        return _record(rows[0]) if rows else None

    def all(self, network: str | None = None, part: str | None = None) -> tuple[Record, ...]:
        """Every record, or those of *network* and *part*, ordered by network, part, container id and interface."""
        wanted = {name: value for name, value in (("network", network), ("part", part)) if value is not None}
        where = " AND ".join(f"{name} = ?" for name in wanted) or "TRUE"
        rows = self._store.query(
            f"SELECT {_COLUMNS} FROM attachments WHERE {where} ORDER BY {', '.join(_OWNER)}", tuple(wanted.values())
        )
        return tuple(map(_record, rows))

    def count(self, network: str | None = None) -> int:
        """The number of records, reads all index entries of the network: on the hot path use `has_others`."""
        if network is None:
            ((number,),) = self._store.query("SELECT count(*) FROM attachments")
        else:
            ((number,),) = self._store.query(COUNT, (network,))
        return int(number)

    def has_network(self, network: str) -> bool:
        """Whether there is an attachment of *network*, in whatever state; what chained plugins add counts for none."""
        return self._exists(OF_NETWORK, (network,))

    def shares_rules(self, record: Record) -> bool:
        """Whether another attachment of the same network and part relies on the same network rules."""
        return self._exists(
            SHARES_RULES, (*_owner(record.attachment), _to_column("network_rules", record.network_rules))
        )

    def has_others_on_host(self, attachment: Attachment) -> bool:
        """Whether there is another one on the host."""
        return self._exists(OTHERS_ON_HOST, _owner(attachment))

    def has_others_with_rules(self, attachment: Attachment) -> bool:
        """Whether there is another one on the host that the packet filter has rules for."""
        return self._exists(OTHERS_WITH_RULES, _owner(attachment))

    def has_any_with_rules(self) -> bool:
        """Whether there is one on the host that the packet filter has rules for."""
        return self._exists(OTHERS_WITH_RULES, ("", "", "", ""))  # nobody's name

    def has_others_of_backend(self, record: Record) -> bool:
        """Whether there is another one on the host whose rules the same backend holds."""
        return self._exists(OTHERS_OF_BACKEND, (*_owner(record.attachment), record.backend))

    def has_others_on_bridge(self, attachment: Attachment, bridge: str) -> bool:
        """The same for one bridge; reads all records, so not for every ADD."""
        return self._exists(ON_BRIDGE, (*_owner(attachment), bridge))

    def rules_of_others(self, attachment: Attachment) -> tuple[NetworkRules, ...]:
        """The distinct network rules that attachments other than this one rely on."""
        rows = self._store.query(RULES_OF_OTHERS, _owner(attachment))
        return tuple(_from_json(NetworkRules, text) for (text,) in rows)

    def _exists(self, sql: str, values: tuple[Any, ...]) -> bool:
        ((found,),) = self._store.query(sql, values)
        return bool(found)


def _owner(attachment: Attachment) -> tuple[str, str, str, str]:
    return attachment.network, attachment.part, attachment.container_id, attachment.ifname


def _values(record: Record) -> tuple[Any, ...]:
    return tuple(_to_column(name, getattr(record, name)) for name in _FIELDS)


def _to_column(name: str, value: Any) -> Any:
    if name in _RULES:
        return json_text.dumps(_plain(value))
    return json_text.dumps(value) if name in _LISTS else value


def _record(row: tuple[Any, ...]) -> Record:
    fields = dict(zip(_FIELDS, row[len(_OWNER) :], strict=True))
    for name in _LISTS:
        fields[name] = tuple(json_text.loads(fields[name]))
    for name, kind in _RULES.items():
        fields[name] = _from_json(kind, fields[name])
    network, part, container_id, ifname = row[: len(_OWNER)]
    return Record(Attachment(network, container_id, ifname, part), **fields)


def _plain(rules: NetworkRules | AttachmentRules) -> dict[str, Any]:
    fields = rules.as_dict()
    if fields.get("ports"):
        fields["ports"] = [one.as_dict() for one in fields["ports"]]
    return fields


def _from_json(kind: Any, text: str) -> Any:
    """Rules whose tuples came back from JSON as lists, and whose port mappings as objects."""
    return kind(**{name: _tuples(value) for name, value in json_text.loads(text).items()})


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(each) for each in value)
    if isinstance(value, dict):  # the only values inside rules
        return PortMapping(**{name: _tuples(each) for name, each in value.items()})
    return value
