"""A CNI runtime: runs the plugins of a network for one attachment, as the specification (section 4) and libcni do.

What a failed ADD leaves is taken back by a DEL of the whole chain, newest plugin first, as containerd and CRI-O do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pycni.cli.cache import CachedAttachment, forget_cached, is_corrupt, read_cached, write_cached
from pycni.cli.capabilities import render_args
from pycni.cli.failure import NOT_FOUND, Failure, unwritable
from pycni.cli.networks import NetworkList, member, plugin_type, version_numbers
from pycni.cni.errors import CniError, Code
from pycni.cni.names import check_container_id, check_ifname, check_network
from pycni.cni.result import parse_result, render_result
from pycni.cni.value import Value
from pycni.host import delegate

DEFAULT_PLUGIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")


class Target(Value):
    """The container side of an attachment and what the runtime passes along."""

    container_id: str
    netns: str
    ifname: str
    args: tuple[tuple[str, str], ...] = ()
    capability_args: Mapping[str, Any] = {}


class Step(Value):
    """One plugin of a network's chain; *position* counts from 1."""

    network: NetworkList
    position: int
    plugin: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return plugin_type(self.plugin)


def steps_of(network: NetworkList) -> list[Step]:
    """The chain in the order of ADD."""
    return [Step(network=network, position=at, plugin=plugin) for at, plugin in enumerate(network.plugins, 1)]


class PluginFailure(Failure):
    """A plugin answered *command* with an error."""

    def __init__(self, error: CniError, step: Step, path: str, command: str) -> None:
        chain = len(step.network.plugins)
        where = f" (plugin {step.position} of {chain})" if chain > 1 else ""
        super().__init__(
            error.msg,
            code=int(error.code),
            details=error.details,
            facts=[("plugin", f"{path}{where}"), ("command", command)],
        )


class Runtime:
    """Plugin directories and a cache directory, and the six commands over them."""

    def __init__(self, plugin_dirs: Sequence[str], cache_dir: str) -> None:
        self.plugin_dirs = tuple(plugin_dirs)
        self.cache_dir = cache_dir

    def find_plugin(self, kind: str) -> str:
        """The executable of that type: the first regular file in the plugin directories; Failure if there is none."""
        try:
            return delegate.find(kind, self.plugin_dirs)
        except CniError as exc:
            raise Failure(
                exc.msg,
                exit_code=NOT_FOUND,
                code=int(exc.code),
                next_step="give --plugin-dir (or CNI_PATH), install the plugin, or run `pycni install`",
            ) from None

    # -- the commands ----------------------------------------------------------------------------------------------

    def add(self, network: NetworkList, target: Target, *, undo: bool = True) -> dict[str, Any]:
        """ADD through the chain; the result as JSON, remembered in the cache. *undo*: DEL follows a failure."""
        _check_names(network, target)
        steps = steps_of(network)
        for step in steps:  # before anything is changed
            self.find_plugin(step.kind)
        result: dict[str, Any] | None = None
        try:
            for step in steps:
                answer = self._run("ADD", step, target, _plugin_conf(step, target, result))
                result = self._in_version(answer, step)
            assert result is not None, "a network has at least one plugin"
            self._remember(network, target, result)
        except Failure as failure:
            if undo and failure.code != Code.ALREADY_ATTACHED:
                failure.facts = (*failure.facts, ("undone", self._take_back(network, target)))
            raise
        except KeyboardInterrupt:
            if undo:
                self._take_back(network, target)
            raise
        return result

    def delete(self, network: NetworkList, target: Target) -> None:
        """DEL through the chain in reverse with the cached result, then forget it. The first failure ends it."""
        _check_names(network, target)
        key = (self.cache_dir, network.name, target.container_id, target.ifname)
        cached = read_cached(*key)
        previous = _previous(network, cached) if version_numbers(network.version) >= (0, 4, 0) else None
        for step in reversed(steps_of(network)):
            self._run("DEL", step, target, _plugin_conf(step, target, previous))
        if cached or is_corrupt(*key):
            forget_cached(*key)

    def check(self, network: NetworkList, target: Target) -> bool:
        """CHECK through the chain with the cached result. False if the list switches it off."""
        _check_names(network, target)
        if version_numbers(network.version) < (0, 4, 0):
            raise Failure(
                f"network {network.name} has cniVersion {network.version or '0.1.0'}, which has no CHECK",
                code=1,
                next_step='CHECK needs "cniVersion": "0.4.0" or newer in the list',
            )
        if network.disable_check:
            return False
        cached = read_cached(self.cache_dir, network.name, target.container_id, target.ifname)
        if cached is None or cached.result is None:
            raise Failure(
                f"nothing is known of {target.container_id}/{target.ifname} on network {network.name}",
                exit_code=NOT_FOUND,
                code=3,
                facts=[("looked in", os.path.join(self.cache_dir, "results"))],
                next_step="see `pycni list`; an attachment is known after `pycni add` or a runtime's ADD",
            )
        previous = _previous(network, cached)
        for step in steps_of(network):
            self._run("CHECK", step, target, _plugin_conf(step, target, previous))
        return True

    def collect(self, network: NetworkList, valid: Sequence[tuple[str, str]]) -> list[Failure]:
        """GC with the (container id, ifname) that are still valid; every plugin is asked, the failures come back."""
        if version_numbers(network.version) < (1, 1, 0):
            return []
        living = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in valid]
        failures = []
        for step in steps_of(network):
            # Plugins of the first 1.1.0 read the second key (containernetworking/cni issue 1101); libcni sends both.
            more = {"cni.dev/valid-attachments": living, "cni.dev/attachments": living}
            try:
                self._run("GC", step, None, {**_plugin_conf(step, None, None), **more})
            except Failure as failure:
                failures.append(failure)
        return failures

    def status(self, network: NetworkList) -> list[tuple[str, str, Failure | None]]:
        """(type, path, failure or None) of each plugin up to the first that is not ready; asked from 1.1.0 on."""
        answers: list[tuple[str, str, Failure | None]] = []
        for step in steps_of(network):
            path = ""
            try:
                path = self.find_plugin(step.kind)
                if version_numbers(network.version) >= (1, 1, 0):
                    self._run("STATUS", step, None, _plugin_conf(step, None, None))
            except Failure as failure:
                answers.append((step.kind, path, failure))
                break
            answers.append((step.kind, path, None))
        return answers

    def versions(self, network: NetworkList) -> list[tuple[str, str, tuple[str, ...]]]:
        """(type, path, supported versions) of each plugin, from its answer to VERSION."""
        answers = []
        for step in steps_of(network):
            answer = self._run("VERSION", step, None, {"cniVersion": network.version or "0.1.0"}) or {}
            supported = answer.get("supportedVersions")
            known = tuple(map(str, supported)) if isinstance(supported, list) else ()
            answers.append((step.kind, self.find_plugin(step.kind), known))
        return answers

    # -- parts of them ---------------------------------------------------------------------------------------------

    def _environ(self, target: Target | None) -> dict[str, str]:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("CNI_")}
        if "CNI_NETNS_OVERRIDE" in os.environ:
            environ["CNI_NETNS_OVERRIDE"] = os.environ["CNI_NETNS_OVERRIDE"]
        environ["CNI_PATH"] = os.pathsep.join(self.plugin_dirs)
        if target:
            environ |= {"CNI_CONTAINERID": target.container_id, "CNI_IFNAME": target.ifname}
            environ |= {"CNI_NETNS": target.netns, "CNI_ARGS": render_args(target.args)}
        return environ

    def _run(self, command: str, step: Step, target: Target | None, conf: Mapping[str, Any]) -> dict[str, Any] | None:
        """The JSON object the plugin printed (None for nothing or `null`); PluginFailure for an error."""
        path = self.find_plugin(step.kind)
        try:
            answer = delegate.run_plugin(path, command, self._environ(target).items(), json.dumps(conf).encode())
            if answer is None or isinstance(answer, dict):
                return answer
            error = CniError(Code.DECODE, "the plugin answered with JSON that is no object")
        except CniError as exc:
            error = exc
        except OSError as exc:
            error = CniError(Code.IO, f"{path} cannot be run: {exc.strerror or exc}")
        raise PluginFailure(error, step, path, command)

    def _in_version(self, answer: dict[str, Any] | None, step: Step) -> dict[str, Any]:
        """A plugin's result in the network's version; one without a version is in it (libcni takes it so)."""
        version = step.network.version or "0.1.0"
        result = {"cniVersion": version, **(answer or {})}
        if result["cniVersion"] in ("", version):
            return {**result, "cniVersion": version}
        try:
            return render_result(parse_result(result, version), version)
        except CniError as exc:
            raise PluginFailure(exc, step, self.find_plugin(step.kind), "ADD") from None

    def _remember(self, network: NetworkList, target: Target, result: dict[str, Any]) -> None:
        cached = CachedAttachment(
            network=network.name,
            container_id=target.container_id,
            ifname=target.ifname,
            config=network.raw,
            netns=target.netns,
            args=target.args,
            capability_args=target.capability_args,
            result=result,
        )
        try:
            write_cached(self.cache_dir, cached)
        except OSError as exc:
            raise unwritable(os.path.join(self.cache_dir, "results"), exc) from None

    def _take_back(self, network: NetworkList, target: Target) -> str:
        """DEL of every plugin, newest first, whatever the others say; a sentence about how it went."""
        failed = []
        for step in reversed(steps_of(network)):
            try:
                self._run("DEL", step, target, _plugin_conf(step, target, None))
            except Failure as failure:
                failed.append(f"{step.kind}: {failure.message}")
        if failed:
            return "DEL was run for the chain, but " + "; ".join(failed)
        return "DEL was run for the whole chain"


def _check_names(network: NetworkList, target: Target) -> None:
    try:
        check_network(network.name)
        check_container_id(target.container_id)
        check_ifname(target.ifname)
    except CniError as exc:
        raise Failure(exc.msg, code=int(exc.code), details=exc.details) from None


def _plugin_conf(step: Step, target: Target | None, previous: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a plugin gets on stdin (specification, "Deriving execution configuration from plugin configuration")."""
    conf = {**step.plugin, "name": step.network.name, "cniVersion": step.network.version}
    if previous is not None:
        conf["prevResult"] = previous
    declared = declared_capabilities(step.plugin)
    runtime = {key: value for key, value in target.capability_args.items() if key in declared} if target else {}
    if runtime:
        conf["runtimeConfig"] = runtime
    return conf


def _previous(network: NetworkList, cached: CachedAttachment | None) -> Mapping[str, Any] | None:
    """The cached result in the network's version; None if there is none or it makes no sense."""
    if cached is None or cached.result is None:
        return None
    version = network.version or "0.1.0"
    if cached.result.get("cniVersion") == version:
        return cached.result
    try:
        return render_result(parse_result(cached.result, version), version)
    except CniError:
        return None


def declared_capabilities(plugin: Mapping[str, Any]) -> frozenset[str]:
    """The capabilities a plugin's configuration declares as true."""
    declared = member(plugin, "capabilities")
    return (
        frozenset(key for key, wanted in declared.items() if wanted is True)
        if isinstance(declared, dict)
        else frozenset()
    )
