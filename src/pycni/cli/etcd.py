"""`pycni etcd dump|check|forget`: what a network's etcd holds, whether it belongs together, hosts that are gone."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from typing import Any

from pycni.cli.failure import FAILED, NOT_FOUND, OK, USAGE, Failure
from pycni.cli.networks import find_network, member
from pycni.cli.state import existing_store
from pycni.cli.tables import age, counted, print_table
from pycni.cni.conf import Keys as ConfKeys
from pycni.cni.errors import CniError, Code
from pycni.etcd.audit import Entry, Problem, audit, read_entries
from pycni.etcd.client import Client
from pycni.etcd.conf import EtcdConf
from pycni.etcd.connect import open_client
from pycni.etcd.nodes import belongings, declare_dead, free
from pycni.etcd.records import Endpoint, OwnEndpoint
from pycni.etcd.requests import Answer
from pycni.etcd.schema import Keys
from pycni.ipam.etcd_conf import pool_of
from pycni.ipam.etcd_state import HostState


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
    """Exit code 1 where something is wrong, with the records or with an endpoint."""
    statuses = client.statuses()
    answer = client.read(keys.base)
    problems = [*audit(keys, answer.found), *_of_this_host(keys, answer)]
    silent = [status for _, status in statuses if isinstance(status, str)]
    if given.json:
        members = [
            {"endpoint": str(endpoint), "problem": status}
            if isinstance(status, str)
            else {"endpoint": str(endpoint), "version": status.version, "revision": status.revision}
            for endpoint, status in statuses
        ]
        told = [{"key": problem.key, "problem": problem.what} for problem in problems]
        print(json.dumps({"prefix": keys.prefix, "members": members, "problems": told}, indent=4))
        return FAILED if problems or silent else OK
    for endpoint, status in statuses:
        print(f"{endpoint}: {status if isinstance(status, str) else f'etcd {status.version}'}")
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
        state = HostState(os.path.dirname(store.path), keys.prefix)
        leases = [each for each in store.leases.all() if each.data_dir == pool_of(keys.prefix)]
        if not leases:
            return []
        node, known = state.node(), {kv.key for kv in answer.found}
        problems = []
        for each in leases:
            key = keys.own_endpoint(node, each.network, each.container_id, each.ifname)
            if key not in known and not any(each.address in block for block in state.blocks(each.network).blocks):
                problems.append(Problem(key, f"this host has {each.address} leased, of which etcd knows nothing"))
        waiting = len(state.pending())
        if waiting:
            problems.append(Problem(keys.own(node), f"{counted(waiting, 'attachment')} still to be given back"))
        return problems


# -- forget ------------------------------------------------------------------------------------------------------------


def _forget(given: Namespace, client: Client, keys: Keys) -> int:
    """Declare a host dead, and, once it has been that for the quarantine, free what it had."""
    now = time.time()
    before, since = belongings(client, keys, given.node)
    if not before and not since:
        raise Failure(f"host {given.node} has nothing in {keys.prefix}", exit_code=NOT_FOUND)
    if since:  # never declared dead, or it came back
        declare_dead(client, keys, given.node, by=os.uname().nodename, now=now)
    try:
        freed = free(client, keys, given.node, now=now, quarantine_s=given.quarantine)
    except CniError as failure:
        if failure.code != Code.TRY_AGAIN:
            raise
        told = {"node": given.node, "freed": 0, "pending": len(before) + len(since), "message": failure.msg}
        print(json.dumps(told, indent=4) if given.json else f"{failure.msg}; run this again then")
        return OK
    told = {"node": given.node, "freed": freed, "pending": 0}
    print(json.dumps(told, indent=4) if given.json else f"freed {counted(freed, 'record')} of {given.node}")
    return OK


HANDLERS = {"etcd": etcd}
