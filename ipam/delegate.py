"""Ask the IPAM plugin that the config names: our own in this process, anybody else's as the executable it is."""

from __future__ import annotations

import os
import sys

from pycni.cni.errors import CniError, Code
from pycni.cni.result import Result, parse_result
from pycni.host.delegate import find, run_plugin
from pycni.ipam import backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.store import Store

# Where it is a pycni of another installation, the agent would let it wait for the very call that it is part of.
_BY_ITSELF = ("PYCNI_SOCKET", "")
_FUNCTIONS = {"ADD": "add", "DEL": "delete", "CHECK": "check", "GC": "gc", "STATUS": "status"}


def ask(verb: str, call: Call, conf: NetConf, store: Store) -> Result | None:
    """The answer of the plugin `ipam.type` to *verb* ("ADD", "DEL", …): a Result for ADD, None for all others.

    A foreign result is of any version and may have routes only, or no gateways. An ADD that fails leaves nothing
    leased. Raises what the plugin says (CniError with its code), and CniError 7 if there is no such plugin.

    A foreign plugin must not be asked inside a transaction: see `is_ours`.
    """
    executable = find(conf.ipam.text("type"), call.path)
    local = _local(executable, call.executable, conf)
    if local is not None:
        answered: Result | None = getattr(local, _FUNCTIONS[verb])(call, conf, store)
        return answered
    if store.in_transaction:
        # It could be a pycni of another installation, which would wait for this very transaction.
        raise CniError(Code.INTERNAL, f"{executable} was to run inside a transaction of {store.path}")
    try:
        answer = run_plugin(executable, verb, (*call.environ, _BY_ITSELF), conf.raw)
        return parse_result(answer, conf.cni_version, where=f"result of {executable}") if verb == "ADD" else None
    except (CniError, OSError):
        if verb == "ADD":
            _take_back(executable, call, conf)
        raise


def is_ours(call: Call, conf: NetConf) -> bool:
    """Whether `ask` will answer in this process, and so may join a transaction that is open.

    CniError 7 if there is no such plugin.
    """
    return _local(find(conf.ipam.text("type"), call.path), call.executable, conf) is not None


def of_this_host(call: Call, conf: NetConf) -> ModuleType | None:
    """Our own commands where they answer from this host's own store alone, so that no transaction waits for a program
    or a network; None where `ask` is to be used. CniError 7 if there is no such plugin.
    """
    return None if conf.ipam.has("etcd") else _local(find(conf.ipam.text("type"), call.path), call.executable, conf)


def _local(executable: str, caller: str, conf: NetConf) -> ModuleType | None:
    """Our own commands, if *executable* would run them: the same file as *caller*, the executable that was called.

    Every executable of pycni is one file under many names (hard links), so the same file means ourselves; and some
    runtimes put a prefix before the name (BuildKit: buildkit-cni-host-local).
    """
    try:
        if not os.path.samestat(os.stat(executable), os.stat(caller)):
            return None
    except OSError:
        return None
    name = os.path.basename(executable)
    if _is_called(name, "host-local", "pycni-ipam"):
        return backend(conf)
    if _is_called(name, "static", "pycni-static"):
        from pycni.ipam import static

        return static
    return None


def _is_called(name: str, *known: str) -> bool:
    return any(name == each or name.endswith(f"-{each}") for each in known)


def _take_back(executable: str, call: Call, conf: NetConf) -> None:
    """The specification's duty after a delegate's failed ADD. The ADD's error is the one to report."""
    try:
        run_plugin(executable, "DEL", (*call.environ, _BY_ITSELF), conf.raw)
    except (CniError, OSError) as exc:
        print(f"pycni: DEL of {executable} after its failed ADD: {exc}", file=sys.stderr)
