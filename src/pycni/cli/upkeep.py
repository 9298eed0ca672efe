"""`pycni gc|status|version`: the commands about a network and not about one attachment."""

from __future__ import annotations

import difflib
import json
import sys
from argparse import Namespace
from collections.abc import Mapping

from pycni import __version__
from pycni.cli import results
from pycni.cli.attachments import LIVING
from pycni.cli.cache import CachedAttachment
from pycni.cli.failure import FAILED, NOT_FOUND, OK, Failure, report, warn
from pycni.cli.networks import NetworkList, find_network, version_numbers
from pycni.cli.runtime import Target
from pycni.cli.state import see_all
from pycni.cli.tables import counted, print_table
from pycni.cli.verbs import explain, known_attachments, make_runtime, remembered
from pycni.cni.versions import SUPPORTED


def _is_alive(one: CachedAttachment, states: Mapping[tuple[str, str], str], keep: list[str]) -> bool:
    """Whether the container still has its namespace; an attachment that cannot be judged counts as alive.

    Our own records know better than a path: the boot, the identity of the namespace, and whether an ADD ever ended.
    """
    if one.container_id in keep or f"{one.container_id}/{one.ifname}" in keep:
        return True
    state = states.get((one.container_id, one.ifname))
    if state is not None:
        return state in LIVING
    return not one.netns or results.is_namespace(one.netns)


def collect(given: Namespace) -> int:
    """DEL of known attachments whose container is gone, then GC of every plugin with those that live."""
    network = find_network(given.network, given.conf_dir)
    runtime = make_runtime(given)
    if network.disable_gc:
        print(f"network {network.name} has disableGC: nothing was done", file=sys.stderr)
        if given.json:
            _print_collected(given, network, [], [], [])
        return OK
    known = known_attachments(given, network.name)
    _refuse_unknown(given.keep, network, known)
    owners = {seen.record.attachment: seen.state for seen in see_all(network.name)}
    states = {(owner.container_id, owner.ifname): state for owner, state in owners.items()}
    stale = [one for one in known if not _is_alive(one, states, given.keep)]
    valid = [(one.container_id, one.ifname) for one in known if one not in stale]
    failures = []
    for one in [] if given.dry_run else stale:
        gone = Target(
            container_id=one.container_id,
            netns="",
            ifname=one.ifname,
            args=one.args,
            capability_args=one.capability_args,
        )
        try:
            runtime.delete(remembered(one, network) or network, gone)
        except Failure as failure:
            failures.append(explain(failure, network))
    if not given.dry_run:
        failures += [explain(failure, network) for failure in runtime.collect(network, valid)]
    _print_collected(given, network, stale, valid, failures)
    return FAILED if failures else OK


def _refuse_unknown(keep: list[str], network: NetworkList, known: list[CachedAttachment]) -> None:
    """A name mistyped in --keep would be a living container's end."""
    names = {name for one in known for name in (one.container_id, f"{one.container_id}/{one.ifname}")}
    for name in keep:
        if name not in names:
            there = "\n".join(sorted(f"{one.container_id}/{one.ifname}" for one in known)) or "nothing"
            near = difflib.get_close_matches(name, names, 1)
            raise Failure(
                f"--keep {name}: network {network.name} knows no such container; nothing was removed",
                exit_code=NOT_FOUND,
                code=3,
                facts=[("known", there)],
                next_step=f"did you mean {near[0]}?" if near else "",
            )


def _print_collected(
    given: Namespace,
    network: NetworkList,
    stale: list[CachedAttachment],
    valid: list[tuple[str, str]],
    failures: list[Failure],
) -> None:
    if given.json:
        answer = {
            "removed": [{"containerID": one.container_id, "ifname": one.ifname} for one in stale],
            "valid": [{"containerID": container_id, "ifname": ifname} for container_id, ifname in valid],
            "errors": [failure.as_json() for failure in failures],
        }
        print(json.dumps(answer, indent=4))
        return
    verb = "would be removed" if given.dry_run else "removed"
    print(f"network {network.name}: {counted(len(stale), 'attachment')} {verb}, {len(valid)} alive")
    if stale:
        print_table(("CONTAINER", "IFNAME", "NAMESPACE"), [(s.container_id, s.ifname, s.netns) for s in stale])
    if version_numbers(network.version) < (1, 1, 0):
        warn(f"the plugins were not asked: cniVersion {network.version or '0.1.0'} has no GC, 1.1.0 has")
    for failure in failures:
        report(failure, as_json=False)


# -- status, version ---------------------------------------------------------------------------------------------------


def status(given: Namespace) -> int:
    """STATUS of every plugin up to the first that is not ready."""
    network = find_network(given.network, given.conf_dir)
    answers = make_runtime(given).status(network)
    failure = answers[-1][2]
    if failure:
        explain(failure, network)
    asked = version_numbers(network.version) >= (1, 1, 0)
    ready = "ready" if asked else "installed"
    if given.json:
        if failure:
            raise failure
        plugins = [{"type": kind, "path": path, "status": ready} for kind, path, _ in answers]
        print(json.dumps({"network": network.name, "status": ready, "plugins": plugins}, indent=4))
        return OK
    rows = [(kind, path, f"{fail.code}: {fail.message}" if fail else ready) for kind, path, fail in answers]
    rows += [(str(plugin.get("type")), "", "not asked") for plugin in network.plugins[len(answers) :]]
    print_table(("PLUGIN", "PATH", "STATUS"), rows)
    if not asked:
        warn(f"the plugins were not asked: cniVersion {network.version or '0.1.0'} has no STATUS, 1.1.0 has")
    if failure:
        raise failure
    return OK


def version(given: Namespace) -> int:
    """VERSION of every plugin of a network, or pycni's own."""
    if given.network is None:
        if given.json:
            print(json.dumps({"pycni": __version__, "supportedVersions": list(SUPPORTED)}, indent=4))
        else:
            print(f"pycni {__version__}, CNI versions {', '.join(SUPPORTED)}")
        return OK
    network = find_network(given.network, given.conf_dir)
    answers = make_runtime(given).versions(network)
    wanted = network.version or "0.1.0"
    if given.json:
        plugins = [{"type": kind, "path": path, "supportedVersions": list(known)} for kind, path, known in answers]
        print(json.dumps({"cniVersion": wanted, "plugins": plugins}, indent=4))
    else:
        print(f"network {network.name} asks for {wanted}")
        rows = [(kind, "yes" if wanted in known else "NO", ", ".join(known), path) for kind, path, known in answers]
        print_table(("PLUGIN", "SPEAKS IT", "VERSIONS", "PATH"), rows)
    lacking = [kind for kind, _, known in answers if wanted not in known]
    if lacking and not given.json:
        common = [one for one in SUPPORTED if all(one in known for _, _, known in answers)]
        step = f"the newest that all speak is {common[-1]}" if common else "they have no version in common"
        raise Failure(f"{', '.join(lacking)} cannot serve cniVersion {wanted}", code=1, next_step=step)
    return FAILED if lacking else OK


HANDLERS = {"gc": collect, "status": status, "version": version}
