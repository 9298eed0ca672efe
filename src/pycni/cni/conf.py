"""The network config on stdin, read once into a value (specification, "Plugin configuration objects")."""

from __future__ import annotations

from pycni.cni import json_text
from pycni.cni.errors import CniError, Code, shown
from pycni.cni.json_text import MAX_BYTES
from pycni.cni.keys import Keys
from pycni.cni.names import Attachment, check_network, check_plugin_type
from pycni.cni.result import Dns, Result, parse_dns, parse_result
from pycni.cni.value import Value
from pycni.cni.versions import SUPPORTED, check_command, check_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["MAX_BYTES", "Keys", "NetConf", "parse_conf"]

MAX_DEPTH = 128  # objects and lists inside one another; a config with a prevResult has about six
_GC_KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")  # the second is libcni's older name for the first


class NetConf(Value):
    """What every plugin wants of its config; its own keys it asks from *keys*."""

    cni_version: str  # one of SUPPORTED; the answer is given in it
    name: str  # of the network
    type: str  # "" if the config does not say: the file name of the plugin decides
    keys: Keys  # all of it
    runtime: Keys  # runtimeConfig: values of the declared capabilities
    args_cni: Keys  # args.cni
    ipam: Keys
    dns: Dns
    dns_given: bool  # dns replaces the one of the IPAM plugin; an explicit [] in it counts, as in the reference
    prev_result: Result | None  # None in GC and STATUS
    valid_attachments: tuple[Attachment, ...] | None  # GC: those to keep; None: the caller gave no list at all
    raw: bytes  # as it came: delegates get the same


def parse_conf(stdin: bytes, command: str, supported: Sequence[str] = SUPPORTED) -> NetConf:
    """The config *stdin* of a call of *command*, in this order of refusal.

    CniError 6 for what is no JSON object of at most `MAX_BYTES` and `MAX_DEPTH`; 7 for the network name; 1 for a
    version not in *supported* or older than *command*; 7 for wrong values elsewhere. Unknown keys are no error.
    """
    keys = Keys(_decode(stdin))
    name = keys.text("name")
    check_network(name)
    version = check_version(keys.text("cniVersion"), supported)
    check_command(command, version)
    plugin_type = keys.text("type")
    if plugin_type:
        check_plugin_type(plugin_type)
    ipam = keys.object("ipam")
    if ipam.text("type"):
        check_plugin_type(ipam.text("type"), where="ipam.type")
    runtime = keys.object("runtimeConfig")
    dns = _dns(keys, runtime)
    return NetConf(
        cni_version=version,
        name=name,
        type=plugin_type,
        keys=keys,
        runtime=runtime,
        args_cni=keys.object("args").object("cni"),
        ipam=ipam,
        dns=dns or Dns(),
        dns_given=dns is not None,
        prev_result=_prev_result(keys, command, version),
        valid_attachments=_valid_attachments(keys, name) if command == "GC" else None,
        raw=stdin,
    )


def _dns(keys: Keys, runtime: Keys) -> Dns | None:
    """The runtime's (capability `dns`: servers, searches, options), else the network's own; None: the IPAM plugin's."""
    asked = runtime.object("dns")
    if any(asked.has(key) for key in ("servers", "searches", "options")):
        return Dns(asked.texts("servers"), "", asked.texts("searches"), asked.texts("options"))
    own = keys.object("dns")
    if own.text("domain") or any(own.has(key) for key in ("nameservers", "search", "options")):
        return parse_dns(own)
    return None


def _decode(stdin: bytes) -> dict[str, Any]:
    if len(stdin) > MAX_BYTES:
        raise CniError(Code.DECODE, f"the network config on stdin is longer than {MAX_BYTES} bytes")
    if not stdin.strip():
        raise CniError(Code.DECODE, "stdin is empty: the network config (JSON) belongs there")
    try:
        text = stdin.decode("utf-8")
        decoded = json_text.loads(text, parse_constant=_refuse_number, parse_float=_finite)
        if b"\\u" in stdin:
            _refuse_lone_surrogates(decoded)
    except UnicodeError as exc:
        raise _not_json(f"not valid Unicode: {exc.reason if isinstance(exc, UnicodeDecodeError) else exc}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as exc:  # JSONDecodeError is one, and so is a number of more digits than int() takes
        raise _not_json(str(exc)) from None
    if not isinstance(decoded, dict):
        raise _not_json(f"{shown(decoded)} is not an object")
    if stdin.count(b"{") + stdin.count(b"[") > MAX_DEPTH:
        _check_depth(decoded)
    return decoded


def _check_depth(decoded: Any) -> None:
    level, depth = [decoded], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        inside = (child for each in level for child in (each.values() if isinstance(each, dict) else each))
        level = [child for child in inside if isinstance(child, dict | list)]


def _refuse_lone_surrogates(decoded: Any) -> None:
    try:
        json_text.dumps(decoded).encode()
    except UnicodeEncodeError:
        raise ValueError("a \\u escape stands for half a character (lone surrogate)") from None


def _refuse_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {shown(text)} is out of range")
    return value


def _not_json(problem: str) -> CniError:
    return CniError(Code.DECODE, f"the network config on stdin is not JSON: {problem}")


def _too_deep() -> CniError:
    return CniError(Code.DECODE, f"the network config on stdin nests deeper than {MAX_DEPTH} levels")


def _prev_result(keys: Keys, command: str, version: str) -> Result | None:
    value = keys.raw("prevResult")
    if value is None or command in ("GC", "STATUS"):
        return None
    try:
        return parse_result(value, version, where="prevResult")
    except CniError:
        # A runtime repeats it from a cache on disk. DEL needs none, and refusing one would leave all that it frees.
        if command == "DEL":
            return None
        raise


def _valid_attachments(keys: Keys, network: str) -> tuple[Attachment, ...] | None:
    """Null is an empty list: Go writes one so. An entry that cannot be read is an error, else GC would delete it."""
    named = [key for key in _GC_KEYS if keys.mentions(key)]
    if not named:
        return None
    key = next((key for key in named if keys.has(key)), named[0])
    return tuple(_attachment(each, network) for each in keys.objects(key))


def _attachment(keys: Keys, network: str) -> Attachment:
    for key in ("containerID", "ifname"):
        if not keys.text(key):
            raise keys.wrong(key, "is missing: GC needs containerID and ifname of every attachment to keep")
    return Attachment(network, keys.text("containerID"), keys.text("ifname"))
