"""The tables (docs/ipam.md draws them), as the steps from an empty file to today's format.

Every statement on the way of ADD and DEL is an index search. A step that was released is never changed: a file of an
older pycni takes the steps it lacks.
"""

from __future__ import annotations

_FIRST = (
    # The write-ahead record of an attachment. A rowid table, so that counting a network's attachments reads the
    # small index and not the configurations.
    """CREATE TABLE attachments (
        network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
        plugin TEXT NOT NULL, state TEXT NOT NULL, pid INTEGER NOT NULL, pid_start INTEGER NOT NULL,
        boot_id TEXT NOT NULL, netns TEXT NOT NULL, netns_id TEXT NOT NULL, bridge TEXT NOT NULL,
        host_links TEXT NOT NULL, addresses TEXT NOT NULL, backend TEXT NOT NULL,
        network_rules TEXT NOT NULL, attachment_rules TEXT NOT NULL,
        conf TEXT NOT NULL, cni_args TEXT NOT NULL, cni_path TEXT NOT NULL,
        result TEXT NOT NULL, created REAL NOT NULL)""",
    "CREATE UNIQUE INDEX attachments_by_owner ON attachments (network, container_id, ifname)",
    # A pool is what host-local keeps in one directory: <dataDir>/<network>.
    """CREATE TABLE pools (
        id INTEGER PRIMARY KEY, data_dir TEXT NOT NULL, network TEXT NOT NULL, UNIQUE (data_dir, network))""",
    # address: family byte (4 or 6) and the address, big-endian, so that order is numeric and the families stay apart.
    # released: NULL while leased; afterwards a number that grows with every release of the pool.
    """CREATE TABLE leases (
        pool INTEGER NOT NULL, address BLOB NOT NULL, subnet TEXT NOT NULL,
        container_id TEXT NOT NULL, ifname TEXT NOT NULL, released INTEGER,
        boot_id TEXT NOT NULL, netns TEXT NOT NULL, netns_id TEXT NOT NULL, mount_ns TEXT NOT NULL,
        created REAL NOT NULL, PRIMARY KEY (pool, address)) WITHOUT ROWID""",
    "CREATE INDEX leases_by_owner ON leases (pool, container_id, ifname)",
    "CREATE INDEX leases_by_release ON leases (pool, released) WHERE released IS NOT NULL",
    "CREATE INDEX leases_by_subnet ON leases (pool, subnet, released) WHERE released IS NOT NULL",
    # Runs of addresses that were ever given out, neighbours merged: one row for a pool that was filled in order.
    """CREATE TABLE spans (
        pool INTEGER NOT NULL, first BLOB NOT NULL, last BLOB NOT NULL, PRIMARY KEY (pool, first)) WITHOUT ROWID""",
)

# part: "" or the chained plugin whose record it is. It stands before the container in the index: the attachments of one
# network and part are neighbours there.
_PARTS = (
    "ALTER TABLE attachments ADD COLUMN part TEXT NOT NULL DEFAULT ''",
    "DROP INDEX attachments_by_owner",
    "CREATE UNIQUE INDEX attachments_by_owner ON attachments (network, part, container_id, ifname)",
)

# All of it belongs to attachments of the part "portmap", and goes with their records.
_PORTS = (
    # Two rows that exclude each other (pycni.change.claims) are never written. host_ip: "" for every address.
    """CREATE TABLE host_ports (
        family INTEGER NOT NULL, proto TEXT NOT NULL, host_ip TEXT NOT NULL,
        low INTEGER NOT NULL, high INTEGER NOT NULL,
        network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
        PRIMARY KEY (family, proto, low, host_ip)) WITHOUT ROWID""",
    "CREATE INDEX host_ports_by_owner ON host_ports (network, container_id, ifname)",
    "CREATE INDEX host_ports_wide ON host_ports (family, proto, low, high) WHERE high > low",
    # What a setting of a link was before the first of its users: one row for each user, all with the same `before`.
    """CREATE TABLE link_settings (
        link TEXT NOT NULL, setting TEXT NOT NULL,
        network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
        boot_id TEXT NOT NULL, before TEXT NOT NULL,
        PRIMARY KEY (link, setting, network, container_id, ifname)) WITHOUT ROWID""",
    "CREATE INDEX link_settings_by_owner ON link_settings (network, container_id, ifname)",
    """CREATE TRIGGER ports_go_with_their_record AFTER DELETE ON attachments WHEN OLD.part = 'portmap' BEGIN
        DELETE FROM host_ports
            WHERE network = OLD.network AND container_id = OLD.container_id AND ifname = OLD.ifname;
        DELETE FROM link_settings
            WHERE network = OLD.network AND container_id = OLD.container_id AND ifname = OLD.ifname;
    END""",
    # Host ports that were chosen for a container's port. Stays when the container goes: it gets the same one again.
    """CREATE TABLE chosen_ports (
        id INTEGER PRIMARY KEY, network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
        proto TEXT NOT NULL, port INTEGER NOT NULL, host_port INTEGER NOT NULL,
        UNIQUE (network, container_id, ifname, proto, port))""",
)

# Where those of an attachment's host ports lead that no rule of the kernel serves.
_PROXIED = (
    """CREATE TABLE proxied_ports (
        network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
        family INTEGER NOT NULL, proto TEXT NOT NULL, host_ip TEXT NOT NULL,
        low INTEGER NOT NULL, high INTEGER NOT NULL,
        address TEXT NOT NULL, port INTEGER NOT NULL, proxy_protocol INTEGER NOT NULL,
        PRIMARY KEY (network, container_id, ifname, family, proto, low, host_ip)) WITHOUT ROWID""",
    """CREATE TRIGGER proxied_go_with_their_record AFTER DELETE ON attachments WHEN OLD.part = 'portmap' BEGIN
        DELETE FROM proxied_ports
            WHERE network = OLD.network AND container_id = OLD.container_id AND ifname = OLD.ifname;
    END""",
)

_MACS = (
    # Of a released address: the MAC that its holder's interface had to the end; empty where nobody saw that.
    "ALTER TABLE leases ADD COLUMN mac BLOB NOT NULL DEFAULT x''",
    # 1: spans were made anew once, and what they lack may have been used all the same.
    "ALTER TABLE pools ADD COLUMN forgot INTEGER NOT NULL DEFAULT 0",
)

STEPS = (_FIRST, _PARTS, _PORTS, _PROXIED, _MACS)
SCHEMA_VERSION = len(STEPS)  # PRAGMA user_version
