"""Which attachment has which ports of the host, what a link was like before ports were published behind it, and which
port was chosen for whom.

All rows of an attachment go with its record: a trigger of the table `attachments` removes them (schema.py), so that a
port is taken exactly as long as there is a record that says by whom.
"""

from __future__ import annotations

from pycni.change.claims import Claim
from pycni.cni.names import Attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pycni.store.db import Database

REMEMBERED = 1024  # chosen ports of attachments that are gone, for a container of the same id

_ROW = "family, proto, host_ip, low, high, network, container_id, ifname"
_IS_OWNER = "network = ? AND container_id = ? AND ifname = ?"
# The primary key's search, by the first port. A range that begins before the wanted ports is found by WIDE alone.
WITHIN = f"SELECT {_ROW} FROM host_ports WHERE family = ? AND proto = ? AND low BETWEEN ? AND ?"
WIDE = f"""SELECT {_ROW} FROM host_ports INDEXED BY host_ports_wide
    WHERE high > low AND family = ? AND proto = ? AND low <= ? AND high >= ?"""
TAKE = f"INSERT INTO host_ports ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
OF_OWNER = f"SELECT {_ROW} FROM host_ports WHERE {_IS_OWNER}"
GIVE_BACK = f"DELETE FROM host_ports WHERE {_IS_OWNER}"

BEFORE = "SELECT before FROM link_settings WHERE link = ? AND setting = ? AND boot_id = ? LIMIT 1"
KEEP = "INSERT OR REPLACE INTO link_settings VALUES (?, ?, ?, ?, ?, ?, ?)"
SETTINGS = f"SELECT link, setting, before FROM link_settings WHERE {_IS_OWNER} AND boot_id = ?"
GIVE_UP = f"DELETE FROM link_settings WHERE {_IS_OWNER}"
USED = "SELECT EXISTS (SELECT 1 FROM link_settings WHERE link = ? AND setting = ? AND boot_id = ?)"

LAST_CHOSEN = "SELECT id, host_port FROM chosen_ports WHERE id = (SELECT max(id) FROM chosen_ports)"
CHOSEN = f"SELECT host_port FROM chosen_ports WHERE {_IS_OWNER} AND proto = ? AND port = ?"
CHOOSE = "INSERT OR REPLACE INTO chosen_ports VALUES (?, ?, ?, ?, ?, ?, ?)"
FORGET = "DELETE FROM chosen_ports WHERE id <= ?"


class HostPorts:
    """The host's ports of one store. Writing methods must run inside a transaction of the store."""

    def __init__(self, store: Database) -> None:
        self._store = store

    # ---- who has what --------------------------------------------------------------------------------------------

    def holder(self, claim: Claim, besides: Attachment | None = None) -> tuple[Claim, Attachment] | None:
        """What stands in the way of *claim*, and whose it is; None where nothing does. *besides* does not count."""
        of = claim.family, claim.proto
        rows = self._store.query(WITHIN, (*of, claim.low, claim.high))
        rows += self._store.query(WIDE, (*of, claim.low, claim.low))
        own = _owner(besides) if besides is not None else None
        for row in rows:
            have = _claim(row)
            if row[5:] != own and have.excludes(claim):
                return have, Attachment(row[5], row[6], row[7], PART)
        return None

    def take(self, attachment: Attachment, claims: Iterable[Claim]) -> None:
        """*claims* are *attachment*'s from now on, in place of whatever it had; nobody may have them (see holder)."""
        owner = _owner(attachment)
        self._store.run(GIVE_BACK, owner)
        for one in claims:
            self._store.run(TAKE, (one.family, one.proto, one.host_ip, one.low, one.high, *owner))

    def of(self, attachment: Attachment) -> tuple[Claim, ...]:
        """What *attachment* has."""
        return tuple(_claim(row) for row in self._store.query(OF_OWNER, _owner(attachment)))

    def all(self) -> tuple[tuple[Claim, Attachment], ...]:
        """Everything, by family, protocol and port."""
        rows = self._store.query(f"SELECT {_ROW} FROM host_ports ORDER BY family, proto, low, host_ip")
        return tuple((_claim(row), Attachment(row[5], row[6], row[7], PART)) for row in rows)

    # ---- links ---------------------------------------------------------------------------------------------------

    def before(self, link: str, setting: str) -> str | None:
        """What *setting* of *link* was before the first of its users of today changed it; None without any."""
        rows = self._store.query(BEFORE, (link, setting, self._store.boot_id))
        return rows[0][0] if rows else None

    def keep(self, attachment: Attachment, link: str, setting: str, before: str) -> None:
        """*attachment* relies on *setting* of *link*, which was *before* until its first user came."""
        self._store.run(KEEP, (link, setting, *_owner(attachment), self._store.boot_id, before))

    def settings(self, attachment: Attachment) -> tuple[tuple[str, str, str], ...]:
        """(link, setting, before) of everything *attachment* relies on."""
        return tuple(self._store.query(SETTINGS, (*_owner(attachment), self._store.boot_id)))

    def give_up_settings(self, attachment: Attachment) -> None:
        """*attachment* relies on none any more."""
        self._store.run(GIVE_UP, _owner(attachment))

    def is_used(self, link: str, setting: str) -> bool:
        """Whether somebody relies on *setting* of *link*."""
        ((found,),) = self._store.query(USED, (link, setting, self._store.boot_id))
        return bool(found)

    # ---- ports that the plugin chose -----------------------------------------------------------------------------

    def last_chosen(self) -> int:
        """The host port chosen last; 0 before the first."""
        rows = self._store.query(LAST_CHOSEN)
        return int(rows[0][1]) if rows else 0

    def chosen(self, attachment: Attachment, proto: str, port: int) -> int:
        """The host port that was chosen for that port of *attachment* the last time; 0 where that is not known."""
        rows = self._store.query(CHOSEN, (*_owner(attachment), proto, port))
        return int(rows[0][0]) if rows else 0

    def choose(self, attachment: Attachment, proto: str, port: int, host_port: int) -> None:
        """Remember *host_port* as chosen for the container's *port*."""
        rows = self._store.query(LAST_CHOSEN)
        number = (rows[0][0] if rows else 0) + 1
        self._store.run(CHOOSE, (number, *_owner(attachment), proto, port, host_port))
        if number > REMEMBERED:
            self._store.run(FORGET, (number - REMEMBERED,))


PART = "portmap"  # of the attachments that have ports


def _owner(attachment: Attachment) -> tuple[str, str, str]:
    return attachment.network, attachment.container_id, attachment.ifname


def _claim(row: tuple[Any, ...]) -> Claim:
    return Claim(*row[:5])
