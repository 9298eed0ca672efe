"""`pycni etcd dump|check|forget`: what a network's etcd holds, whether it belongs together, hosts that are gone."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import Any

from pycni.cli.failure import FAILED, NOT_FOUND, OK, USAGE, Failure
from pycni.cli.networks import find_network, member
from pycni.cli.state import existing_store
from pycni.cli.tables import age, counted, print_table
from pycni.cni.conf import Keys as ConfKeys
from pycni.etcd.audit import Entry, Problem, audit, read_entries
from pycni.etcd.barrier import is_fenced
from pycni.etcd.client import Client
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.nodes import Freed, belongings, declare_dead, free_behind_barrier, read_hosts
from pycni.etcd.records import Endpoint, Member, Node, OwnEndpoint
from pycni.etcd.requests import Answer, KeyValue
from pycni.etcd.schema import Keys
from pycni.etcd.versions import warning
from pycni.ipam.etcd_conf import pool_of
from pycni.ipam.etcd_state import HostState

UNDER_WAY_S = 120.0  # a call of which nothing is recorded yet may be so old
FOLLOW_S, LOOK_AGAIN_S = 5.0, 0.2  # how long `forget` waits for hosts whose agents follow, and between two looks


def etcd(given: Namespace) -> int:
    """Dispatch to the second word."""
    verbs = {"dump": _dump, "check": _check, "forget": _forget}
    if given.etcd_command is None:
        raise Failure("pycni etcd: say what: dump, check or forget", exit_code=USAGE)
    conf = _connection(given.network, given.conf_dir)
    with open_client(conf) as client:
        return verbs[given.etcd_command](given, client, Keys(conf.prefix))


def _connection(name: str, conf_dir: str) -> EtcdConf:
    """How the network *name* reaches its etcd."""
    network = find_network(name, conf_dir)
    for plugin in network.plugins:
        ipam = member(plugin, "ipam")
        for where, holder in (("etcd", plugin), ("ipam.etcd", ipam)):
            found = member(holder, "etcd") if isinstance(holder, dict) else None
            if isinstance(found, dict):
                return EtcdConf.parse(ConfKeys(found, where))
    raise Failure(f"network {network.name} does not use etcd", next_step='its config has no "etcd" object')


# -- dump --------------------------------------------------------------------------------------------------------------


def _dump(given: Namespace, client: Client, keys: Keys) -> int:
    answer = client.read(keys.base)
    entries, problems = read_entries(keys, answer.found)
    if given.json:
        told = [_entry_json(entry) for entry in entries]
        told += [{"key": problem.key, "problem": problem.what} for problem in problems]
        print(json.dumps({"prefix": keys.prefix, "revision": answer.revision, "entries": told}, indent=4))
        return OK
    now = time.time()
    rows = [(entry.kind, " ".join(entry.parts), *_told(entry, now)) for entry in entries]
    rows += [("?", problem.key, problem.what, "") for problem in problems]
    if not rows:
        print(f"nothing is recorded below {keys.prefix}")
        return OK
    print_table(("KIND", "OF", "RECORD", "AGE"), rows, right=("AGE",))
    return OK


def _told(entry: Entry, now: float) -> tuple[str, str]:
    """The record in words, and its age."""
    record = entry.record
    if record is None:
        return entry.key.value.decode(errors="replace"), ""
    if isinstance(record, Endpoint):
        words = f"{record.container}/{record.ifname} on {record.node}"
        return f"{words} {record.mac}".strip(), age(now - record.created)
    if isinstance(record, OwnEndpoint):
        return ", ".join(record.ips), age(now - record.created)
    if isinstance(record, Member):
        words = f"{record.name} at {record.vtep} port {record.port}, {record.mac}, MTU {record.mtu}"
        return words if record.agent else f"{words}, no agent", age(now - record.created)
    shown = {name: value for name, value in record.as_dict().items() if value and name not in ("id", "created", "at")}
    words = ", ".join(
        f"{name} {' '.join(value) if isinstance(value, tuple) else value}" for name, value in shown.items()
    )
    since = getattr(record, "created", 0.0) or getattr(record, "at", 0.0)
    return words, age(now - since) if since else ""


def _entry_json(entry: Entry) -> dict[str, Any]:
    kv = entry.key
    value = entry.record.as_dict() if entry.record is not None else kv.value.decode(errors="replace")
    told = {"kind": entry.kind, "of": list(entry.parts), "value": value, "key": kv.key}
    return {**told, "modRevision": kv.mod_revision, "lease": kv.lease}


# -- check -------------------------------------------------------------------------------------------------------------


def _check(given: Namespace, client: Client, keys: Keys) -> int:
    """Exit code 1 where something is wrong, with the records or with an endpoint; a dated etcd is only mentioned."""
    statuses = client.statuses()
    answer = client.read(keys.base)
    problems = [*audit(keys, answer.found), *_of_this_host(keys, answer)]
    silent = [status for _, status in statuses if isinstance(status, str)]
    if given.json:
        members = [
            {"endpoint": str(endpoint), "problem": status}
            if isinstance(status, str)
            else {
                "endpoint": str(endpoint),
                "version": status.version,
                "revision": status.revision,
                "warning": warning(status.version),
            }
            for endpoint, status in statuses
        ]
        told = [{"key": problem.key, "problem": problem.what} for problem in problems]
        print(json.dumps({"prefix": keys.prefix, "members": members, "problems": told}, indent=4))
        return FAILED if problems or silent else OK
    for endpoint, status in statuses:
        if isinstance(status, str):
            print(f"{endpoint}: {status}")
        else:
            print(f"{endpoint}: {warning(status.version) or f'etcd {status.version}'}")
    for problem in problems:
        print(f"{problem.key}: {problem.what}")
    print(f"{counted(len(answer.found), 'record')} below {keys.prefix}, {counted(len(problems), 'problem')}")
    return FAILED if problems or silent else OK


def _of_this_host(keys: Keys, answer: Answer) -> list[Problem]:
    """What this host's own store and etcd do not agree on."""
    store = existing_store()
    if store is None:
        return []
    with store:
        directory = os.path.dirname(store.path)
        if not os.path.exists(f"{directory}/node"):
            return []  # it has no id yet: nothing in etcd is its own
        state, pool = HostState(directory, keys.prefix), pool_of(keys.prefix)
        node, leases = state.node(), [each for each in store.leases.all() if each.data_dir == pool]
        owned = {keys.own_endpoint(node, each.network, each.container_id, each.ifname): each for each in leases}
        known = {kv.key: kv for kv in answer.found}
        problems = []
        for key, each in owned.items():
            if key not in known and not any(each.address in block for block in state.blocks(each.network).blocks):
                problems.append(Problem(key, f"this host has {each.address} leased, of which etcd knows nothing"))
        problems += _leaked(keys, (kv for key, kv in known.items() if key not in owned), node)
        waiting = len(state.pending())
        if waiting:
            problems.append(Problem(keys.own(node), f"{counted(waiting, 'attachment')} still to be given back"))
        return problems


def _leaked(keys: Keys, found: Iterable[KeyValue], node: str) -> Iterator[Problem]:
    """What *node*, this host, once took, and does not know of; an ADD that is under way is no problem."""
    entries, _ = read_entries(keys, (kv for kv in found if kv.key.startswith(keys.own_endpoints(node))))
    for entry in entries:
        own = entry.record
        if isinstance(own, OwnEndpoint) and time.time() - own.created > UNDER_WAY_S:
            told = f"this host took {', '.join(own.ips)} and knows nothing of it: `pycni gc` gives it back"
            yield Problem(entry.key.key, told)


# -- forget ------------------------------------------------------------------------------------------------------------


def _forget(given: Namespace, client: Client, keys: Keys) -> int:
    """Declare a host dead, and free what it had as far as nobody listens to it any more."""
    node, now = _host(client, keys, given.node), time.time()
    before, since = belongings(client, keys, node)
    hosts = read_hosts(client, keys)
    fenced = [is_fenced(hosts, seat) for seat in hosts.seats if seat.node == node]
    if not before and not since and not fenced:
        raise Failure(f"host {node} has nothing in {keys.prefix}", exit_code=NOT_FOUND)
    if since or not all(fenced):  # never declared dead, or it came back
        declare_dead(client, keys, node, by=os.uname().nodename, now=now)
    freed = free_behind_barrier(client, keys, node, now=now, quarantine_s=given.quarantine)
    until, count = time.monotonic() + FOLLOW_S, freed.count
    while any(each.soon for each in freed.waits) and time.monotonic() < until:
        time.sleep(LOOK_AGAIN_S)
        freed = free_behind_barrier(client, keys, node, now=time.time(), quarantine_s=given.quarantine)
        count += freed.count
    left = sum(map(len, belongings(client, keys, node)))
    waits = _waits(node, freed, given.quarantine)
    if given.json:
        obstacles = [{"node": each.node, "why": each.why} for each in freed.waits]
        told = {"node": node, "freed": count, "pending": left, "waits": obstacles, "message": "; ".join(waits)}
        print(json.dumps(told, indent=4))
        return OK
    if count or not waits:
        print(f"freed {counted(count, 'record')} of {node}")
    for each in waits:
        print(each)
    if waits:
        print("run this again then")
    return OK


def _host(client: Client, keys: Keys, name: str) -> str:
    """The id of the host that is called *name*; *name* itself where none is: then it is an id."""
    ids: set[str] = set()
    for prefix in (keys.all_members, keys.nodes):
        for entry in read_entries(keys, client.read(prefix).found)[0]:
            if isinstance(entry.record, Member | Node) and entry.record.name == name:
                ids.add(entry.parts[0])
    if len(ids) > 1:
        raise Failure(f"several hosts are called {name}: {', '.join(sorted(ids))}", next_step="say which by its id")
    return ids.pop() if ids else name


def _waits(node: str, freed: Freed, quarantine_s: float) -> list[str]:
    """Why not all of *node*'s belongings were freed, in sentences."""
    told = [f"its addresses in overlay networks wait for host {each.node}: it {each.why}" for each in freed.waits]
    if any(each.waivable for each in freed.waits):
        told.append(f"hosts without an agent are waited for until {quarantine_s:.0f} s after the death")
    if freed.quarantine_s:
        ago = max(0.0, quarantine_s - freed.quarantine_s)
        told.append(
            f"host {node} was declared dead {ago:.0f} s ago: addresses in networks whose hosts do not follow each other"
            f" are freed after {quarantine_s:.0f} s"
        )
    told += [f"this stays, since it cannot be read: {each}" for each in freed.left]
    return told


HANDLERS = {"etcd": etcd}
