"""`pycni list` and `pycni inspect`: what our plugins recorded of an attachment, and what the kernel has of it."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from pycni.agent.view import ATTACHED, Seen, link_exists
from pycni.cli import results, target
from pycni.cli.cache import CachedAttachment, all_cached, cache_file
from pycni.cli.failure import NOT_FOUND, OK, Failure
from pycni.cli.state import objects_of, read_records, see_all
from pycni.cli.tables import age, print_table, render_facts
from pycni.cni.names import Attachment
from pycni.store import Record

# States of an attachment that still belongs to somebody.
LIVING = (*ATTACHED, "being made", "being removed")


def recorded_attachments(network: str | None) -> list[CachedAttachment]:
    """The records of our store in the shape of the cache, for attachments that no runtime's cache knows of: one for all
    plugins of a list."""
    chains: dict[Attachment, list[Record]] = {}
    for record in sorted(read_records(network), key=lambda record: record.created):
        chains.setdefault(record.attachment.replace(part=""), []).append(record)
    return [_as_cached(*records) for records in chains.values()]


def _as_cached(*records: Record) -> CachedAttachment:
    """What *records* say of one attachment, those of the plugins of a list in their order."""
    first, confs = records[0], [_object(record.conf) for record in records]
    plugins = [{key: conf[key] for key in conf if key not in ("prevResult", "runtimeConfig")} for conf in confs if conf]
    as_list = {"name": first.attachment.network, "cniVersion": confs[0].get("cniVersion", ""), "plugins": plugins}
    pairs = (pair.partition("=") for pair in first.cni_args.split(";") if "=" in pair)
    runtime = [conf["runtimeConfig"] for conf in confs if isinstance(conf.get("runtimeConfig"), dict)]
    results_said = [result for record in records if (result := _object(record.result))]
    return CachedAttachment(
        network=first.attachment.network,
        container_id=first.attachment.container_id,
        ifname=first.attachment.ifname,
        config=json.dumps(as_list).encode() if plugins else b"",
        netns=first.netns,
        args=tuple((key, value) for key, _, value in pairs),
        capability_args={key: value for each in runtime for key, value in each.items()},
        result=results_said[-1] if results_said else None,
        whole=False,
    )


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


# -- list --------------------------------------------------------------------------------------------------------------


def _as_json(seen: Seen) -> dict[str, Any]:
    record = seen.record
    return {
        "network": record.attachment.network,
        "containerID": record.attachment.container_id,
        "ifname": record.attachment.ifname,
        "state": seen.state,
        "addresses": list(record.addresses),
        "hostLinks": list(record.host_links),
        "bridge": record.bridge,
        "netns": record.netns,
        "plugin": record.plugin,
        "created": record.created,
    }


def list_attachments(given: Namespace) -> int:
    """One row for each attachment."""
    found = see_all(given.network)
    if given.json:
        print(json.dumps([_as_json(seen) for seen in found], indent=4))
        return OK
    if not found:
        where = f"to network {given.network} " if given.network else ""
        print(f"no attachment {where}was made by pycni's plugins on this host")
        return OK
    now = time.time()
    rows = [
        (
            seen.record.attachment.network,
            seen.record.attachment.container_id,
            seen.record.attachment.ifname,
            "\n".join(seen.record.addresses),
            "\n".join(seen.record.host_links),
            age(now - seen.record.created),
            seen.state,
        )
        for seen in found
    ]
    print_table(("NETWORK", "CONTAINER", "IFNAME", "ADDRESSES", "HOST LINK", "AGE", "STATE"), rows, right=("AGE",))
    return OK


# -- inspect -----------------------------------------------------------------------------------------------------------


def inspect(given: Namespace) -> int:
    """Record, result and kernel objects of a container's attachments."""
    seen = {_key(_as_cached(one.record)): one for one in see_all()}
    cached = {_key(one): one for one in _readable_cache(given.cache_dir)}
    known = list({**{key: _as_cached(one.record) for key, one in seen.items()}, **cached}.values())
    found = _meant(given, known)
    reports = [_describe(given.cache_dir, one, seen.get(_key(one)), _key(one) in cached) for one in found]
    if given.json:
        print(json.dumps(reports, indent=4))
        return OK
    for number, (one, report) in enumerate(zip(found, reports, strict=True)):
        print("\n" * (number > 0) + f"{one.container_id}/{one.ifname} on network {one.network}")
        for line in render_facts(list(_facts(report))):
            print(line)
        if one.result:
            results.print_result(one.result, str(one.result.get("cniVersion", "")))
        _print_objects(report["kernel"])
    return OK


def _meant(given: Namespace, known: list[CachedAttachment]) -> list[CachedAttachment]:
    """The attachments of CONTAINER that --network and --ifname leave; Failure saying where it is if they leave none."""
    on_network = [one for one in known if given.network in (None, one.network)]
    there = _of_container(given.container, on_network) or _of_container(given.container, known)
    if not there:
        _, tried = target.resolve_namespace(given.container)
        raise target.Unknown(given.container, tried, known, given.cache_dir)
    found = [one for one in there if given.network in (None, one.network) and given.ifname in (None, one.ifname)]
    if found:
        return found
    interface = f"interface {given.ifname}" if given.ifname else "interface"
    where = f" on network {given.network}" if given.network else ""
    raise Failure(
        f"{given.container!r} has no {interface}{where}",
        exit_code=NOT_FOUND,
        code=3,
        facts=[("found", "\n".join(f"{one.container_id}/{one.ifname} on network {one.network}" for one in there))],
    )


def _of_container(text: str, known: list[CachedAttachment]) -> list[CachedAttachment]:
    found = target.find_attachments(text, known)
    if found:
        return found
    where, _ = target.resolve_namespace(text)
    return [one for one in known if where and target.same_path(one.netns, where.path)]


def _readable_cache(directory: str) -> list[CachedAttachment]:
    try:
        return all_cached(directory)
    except PermissionError:
        return []  # a reader sees what the agent tells


def _key(one: CachedAttachment) -> tuple[str, str, str]:
    return one.network, one.container_id, one.ifname


def _describe(cache_dir: str, one: CachedAttachment, seen: Seen | None, in_cache: bool) -> dict[str, Any]:
    return {
        "network": one.network,
        "containerID": one.container_id,
        "ifname": one.ifname,
        "netns": one.netns,
        "cacheFile": cache_file(cache_dir, *_key(one)) if in_cache else None,
        "record": _as_json(seen) if seen else None,
        "result": one.result,
        "kernel": _kernel_objects(one, seen),
    }


def _facts(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    record = report["record"]
    yield "state", record["state"] if record else "not made by pycni's plugins"
    yield "namespace", report["netns"] + ("" if _has_namespace(report) else " (gone)")
    if record:
        yield "plugin", record["plugin"]
        yield "made", f"{age(time.time() - record['created'])} ago"
    yield "cached in", report["cacheFile"] or "nowhere: no runtime that uses libcni made it"


def _has_namespace(report: Mapping[str, Any]) -> bool:
    record = report["record"]  # its state was judged by somebody who may look
    return record["state"] != "netns gone" if record else results.is_namespace(report["netns"])


def _kernel_objects(one: CachedAttachment, seen: Seen | None) -> list[dict[str, str]]:
    """Every object the attachment should have in the kernel: what, where, and whether it is there."""
    if seen is not None:
        return objects_of(seen.record.attachment)
    found = "yes" if link_exists(one.netns, one.ifname) else "NO"
    return [{"kind": "link", "name": one.ifname, "where": "container", "found": found}]


def _print_objects(objects: list[dict[str, str]]) -> None:
    print()
    print_table(("OBJECT", "NAME", "WHERE", "FOUND"), [(o["kind"], o["name"], o["where"], o["found"]) for o in objects])


HANDLERS = {"list": list_attachments, "inspect": inspect}
