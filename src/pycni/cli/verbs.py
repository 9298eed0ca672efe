"""`pycni add|del|check`: which attachment the words mean, and how the answers look."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from pycni.agent.view import link_exists
from pycni.cli import results, target
from pycni.cli.attachments import recorded_attachments
from pycni.cli.cache import CachedAttachment, all_cached, is_corrupt, read_cached
from pycni.cli.capabilities import capability_args
from pycni.cli.failure import NOT_FOUND, OK, Failure, warn
from pycni.cli.networks import Broken, NetworkList, find_network, parse_list, plugin_type
from pycni.cli.runtime import DEFAULT_PLUGIN_DIRS, PluginFailure, Runtime, Target, declared_capabilities
from pycni.cli.state import read_records
from pycni.cni.names import Attachment
from pycni.store.boot import boot_id

DEFAULT_IFNAME = "eth0"

_NEXT_STEPS = {
    1: "choose a cniVersion that every plugin of the network speaks: `pycni version NETWORK`",
    4: "check the container id, interface name and --args",
    7: "correct the network's configuration",
    8: "give the path of a network namespace, for example /run/netns/NAME or /proc/PID/ns/net",
    11: "try again in a moment",
    50: "see `pycni status NETWORK` and `pycni doctor`",
    51: "see `pycni status NETWORK` and `pycni doctor`",
    100: "`pycni ports` shows what containers have published",
    101: "`pycni ipam usage` shows the ranges; `pycni gc NETWORK` frees what dead containers hold",
    102: "`pycni ipam list` shows who holds the address",
    103: "`pycni doctor` looks at the firewall",
    104: "`pycni doctor` says what the kernel lacks",
    105: "detach it first: `pycni del`",
    106: "`pycni del` and `pycni add` make it anew; `pycni inspect CONTAINER` shows what is left",
}


def make_runtime(given: Namespace) -> Runtime:
    """The runtime over the directories of the command line."""
    dirs = given.plugin_dir or [part for part in os.environ.get("CNI_PATH", "").split(os.pathsep) if part]
    return Runtime(dirs or DEFAULT_PLUGIN_DIRS, given.cache_dir)


def explain(failure: Failure, network: NetworkList) -> Failure:
    """*failure* with the network, and a next step if its code suggests one."""
    source = f"{network.name} ({network.path})" if network.path else f"{network.name} (as remembered from ADD)"
    failure.facts = (*failure.facts, ("network", source))
    if not failure.next_step:
        failure.next_step = _NEXT_STEPS.get(failure.code, "")
    return failure


def _warn_about_undeclared(network: NetworkList, args: Mapping[str, Any]) -> None:
    declared = {name for plugin in network.plugins for name in declared_capabilities(plugin)}
    for name in sorted(set(args) - declared):
        warn(f'no plugin of {network.name} declares the capability "{name}"; it goes to none')


# -- add ---------------------------------------------------------------------------------------------------------------


def add(given: Namespace) -> int:
    """ADD, then the result as a table."""
    network = find_network(given.network, given.conf_dir)
    runtime = make_runtime(given)
    where, tried = target.resolve_namespace(given.target)
    if where is None or not os.path.exists(where.path):
        raise Failure(
            f"no network namespace called {given.target!r}",
            exit_code=NOT_FOUND,
            code=8,
            facts=[("tried", "\n".join(tried) or f"path {given.target}")],
            next_step="`ip netns add NAME` makes one; `ip netns list` shows them",
        )
    wanted = Target(
        container_id=given.container_id or where.container_id,
        netns=where.path,
        ifname=given.ifname or DEFAULT_IFNAME,
        args=tuple(given.args),
        capability_args=capability_args(given),
    )
    _refuse_second_add(runtime, network, wanted)
    _warn_about_undeclared(network, wanted.capability_args)
    existed = link_exists(wanted.netns, wanted.ifname)
    try:
        # An interface that was there before is not this ADD's, and the DEL after a failure would remove it.
        result = runtime.add(network, wanted, undo=not existed)
    except Failure as failure:
        if existed and isinstance(failure, PluginFailure):
            kept = f"nothing: {wanted.ifname} was in the namespace before, so DEL was not run"
            failure.facts = (*failure.facts, ("undone", kept))
        raise explain(failure, network) from None
    if given.json:
        print(json.dumps(result, indent=4))
    else:
        print(f"{wanted.container_id}/{wanted.ifname} is on network {network.name}")
        results.print_result(result, network.version)
    return OK


def _refuse_second_add(runtime: Runtime, network: NetworkList, wanted: Target) -> None:
    """ADD must not be called twice (specification, ADD), and the DEL after its failure would undo the first."""
    cached = read_cached(runtime.cache_dir, network.name, wanted.container_id, wanted.ifname)
    if cached is None or _is_history(Attachment(network.name, wanted.container_id, wanted.ifname)):
        return
    alive = os.path.exists(cached.netns)
    raise Failure(
        f"{wanted.container_id}/{wanted.ifname} is already on network {network.name}",
        code=105,
        facts=[("namespace", cached.netns + ("" if alive else " (gone)"))],
        next_step=f"`pycni del {network.name} {wanted.container_id}` first, or another --ifname or --container-id",
    )


def _is_history(attachment: Attachment) -> bool:
    """Whether a reboot has ended it, by the records of our plugins: the cache outlives that, and knows no boots. What
    is left of it the plugins settle at the new ADD."""
    records = [one for one in read_records(attachment.network) if one.attachment.replace(part="") == attachment]
    return bool(records) and all(one.boot_id != boot_id() for one in records)


# -- del, check --------------------------------------------------------------------------------------------------------


def known_attachments(given: Namespace, network: str) -> list[CachedAttachment]:
    """What is known of attachments to *network*: the cache, then records of our store that no cache file covers."""
    known = [one for one in all_cached(given.cache_dir) if one.network == network]
    seen = {(one.container_id, one.ifname) for one in known}
    return known + [one for one in recorded_attachments(network) if (one.container_id, one.ifname) not in seen]


def _network_and_target(given: Namespace) -> tuple[NetworkList, Target]:
    """The network and attachment a DEL or CHECK means.

    The configuration remembered from ADD comes before the one in the directory, which may have changed or gone since;
    a file given by its path comes before both.
    """
    by_path = os.sep in given.network
    network = missing = None
    try:
        network = find_network(given.network, given.conf_dir)
    except Failure as failure:
        if by_path:
            raise
        missing = failure
    found, where = _matching(given, network.name if network else given.network)
    chosen = remembered(found, network) if found and not by_path else network
    if chosen is None:
        assert missing is not None
        raise missing
    return chosen, _target(given, found, where)


def _matching(given: Namespace, network: str) -> tuple[CachedAttachment | None, target.Namespace | None]:
    """The known attachment that the command line means, and the namespace it names; at least one of them, else Failure.

    DEL must go on without any memory of the attachment, so an unknown one is no failure as long as the words say
    what it would be: a namespace, or a container id given as such.
    """
    where, tried = target.resolve_namespace(given.target)
    known = known_attachments(given, network)
    if given.container_id:
        candidates = [one for one in known if one.container_id == given.container_id]
    else:
        candidates = [one for one in known if where and target.same_path(one.netns, where.path)]
        if not candidates:  # a path may be a name as well: NAMESPACE/POD
            candidates = target.find_attachments(given.target, known)
        if not candidates and where:
            candidates = [one for one in known if one.container_id == where.container_id]
    fitting = [one for one in candidates if given.ifname in (None, one.ifname)]
    if fitting or (candidates and where is None):
        return target.choose_attachment(given.target, candidates, given.ifname), where
    if where is None and not given.container_id:
        raise target.Unknown(given.target, tried, known, given.cache_dir)
    return None, where


def remembered(found: CachedAttachment, network: NetworkList | None) -> NetworkList | None:
    """The network as it was at ADD; *network*, as it is configured now, where nobody says, or where only some plugins
    recorded what they did and it has all of these."""
    try:
        at_add = parse_list(found.config) if found.config else None
    except Broken:
        at_add = None
    if at_add is None or network is None or found.whole:
        return at_add or network
    recorded, configured = ({plugin_type(plugin) for plugin in each.plugins} for each in (at_add, network))
    return network if recorded <= configured else at_add


def _target(given: Namespace, found: CachedAttachment | None, where: target.Namespace | None) -> Target:
    """The attachment: what is remembered, with the command line's own values on top."""
    asked = capability_args(given) if given.command == "del" else {}
    if found is None:
        return Target(
            container_id=given.container_id or (where.container_id if where else ""),
            netns=where.path if where else "",
            ifname=given.ifname or DEFAULT_IFNAME,
            args=tuple(given.args),
            capability_args=asked,
        )
    return Target(
        container_id=found.container_id,
        netns=where.path if where and os.path.exists(where.path) else found.netns,
        ifname=found.ifname,
        args=tuple(given.args) or found.args,
        capability_args=asked or found.capability_args,
    )


def delete(given: Namespace) -> int:
    """DEL; done is done, also when there was nothing."""
    try:
        network, wanted = _network_and_target(given)
    except target.Unknown as unknown:
        return _nothing_to_delete(given, unknown)
    runtime = make_runtime(given)
    corrupt = is_corrupt(runtime.cache_dir, network.name, wanted.container_id, wanted.ifname)
    if corrupt:
        warn(f"the cached result of {wanted.container_id}/{wanted.ifname} is damaged; DEL goes without it")
    if not os.path.exists(wanted.netns):
        wanted = wanted.replace(netns="")  # the specification's way to say that it is gone
    try:
        runtime.delete(network, wanted)
    except Failure as failure:
        raise explain(failure, network) from None
    if given.json:
        there = {"namespaceGone": not wanted.netns, "deleted": True}
        print(json.dumps({**_named(network.name, wanted.container_id, wanted.ifname), **there}, indent=4))
    else:
        gone = "" if wanted.netns else " (its namespace was gone before)"
        print(f"{wanted.container_id}/{wanted.ifname} is off network {network.name}{gone}")
    return OK


def _nothing_to_delete(given: Namespace, unknown: target.Unknown) -> int:
    """What a DEL after the last one finds: no namespace, and nothing is known of the container."""
    if not target.is_container_id(given.target):
        raise unknown
    if given.json:
        there = {"namespaceGone": True, "deleted": False}
        print(json.dumps({**_named(given.network, given.target, given.ifname), **there}, indent=4))
        return OK
    print(f"nothing to delete: no namespace or container called {given.target!r} is known on network {given.network}")
    if unknown.near:
        warn(f"did you mean {unknown.near}?")
    return OK


def _named(network: str, container_id: str, ifname: str | None) -> dict[str, Any]:
    return {"network": network, "containerID": container_id, "ifname": ifname}


def check(given: Namespace) -> int:
    """CHECK; an object or one line on success."""
    network, wanted = _network_and_target(given)
    try:
        checked = make_runtime(given).check(network, wanted)
    except Failure as failure:
        raise explain(failure, network) from None
    if given.json:
        there = {"checked": checked, "ok": True}
        print(json.dumps({**_named(network.name, wanted.container_id, wanted.ifname), **there}, indent=4))
    else:
        ok = "is as ADD left it" if checked else "was not checked: the network has disableCheck"
        print(f"{wanted.container_id}/{wanted.ifname} on network {network.name} {ok}")
    return OK


HANDLERS = {"add": add, "del": delete, "check": check}
