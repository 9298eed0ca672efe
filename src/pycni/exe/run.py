"""What every executable runs: environment and stdin in, result or error JSON out.

argv[0] says which plugin: all executables are one launcher under many names, and some runtimes rename them
(BuildKit: buildkit-cni-bridge), so the last part of the name counts.
"""

from __future__ import annotations

import os
import sys

import pycni
from pycni.cni import json_text
from pycni.cni.env import parse_call
from pycni.cni.errors import CniError, Code
from pycni.cni.versions import version_text
from pycni.exe.plugins import find_plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.exe.plugins import Plugin

REFERENCE_FEATURES = "1.9.0"  # the release of the reference plugins whose keys ours understand


STANDALONE = "pycni-standalone"  # the executable that launcher.c becomes where no agent listens


def main() -> int:
    """Answer one call; the exit code is 0, or 1 with an error object on stdout (spec, section 2)."""
    if os.path.basename(sys.argv[0]) == STANDALONE and sys.argv[1:]:
        del sys.argv[0]  # the second word is the plugin's path: a #! line loses the first
    name = os.path.basename(sys.argv[0])
    plugin = find_plugin(name)
    if plugin is None:
        sys.stderr.write(f"{name}: no pycni plugin has that name\n")
        return 1
    if not os.environ.get("CNI_COMMAND"):
        sys.stderr.write(about(plugin))
        return 0
    pycni.stays_home = True
    code, text = answer(plugin, os.environ, lambda: read_all(0), executable=sys.argv[0])
    try:
        write_all(1, text.encode())
    except OSError as failure:  # whoever called is gone: what was done stands, and a DEL takes it back
        sys.stderr.write(f"{name}: the answer cannot be written to stdout: {failure.strerror}\n")
        return 1
    return code


def answer(
    plugin: Plugin, environ: Mapping[str, str], stdin: Callable[[], bytes], *, executable: str = "", netns_fd: int = -1
) -> tuple[int, str]:
    """Exit code and stdout of one call; *stdin* is called for its bytes once the environment has been accepted.

    *executable*: the file that was called; *netns_fd*: CNI_NETNS already open, for a caller with other mounts.
    """
    try:
        call = parse_call(environ).replace(executable=executable, netns_fd=netns_fd)
        if call.command == "VERSION":
            return 0, version_text(plugin.supported)
        text = _config(stdin)
        if call.command == "DEL" and plugin.makes_link and _CONF not in sys.modules:
            from pycni.exe.head_start import begin_del

            begin_del(call, text)
        return 0, _carry_out(plugin, call, text)
    except CniError as failure:
        return 1, _error(_with_notes(failure))
    except OSError as failure:
        return 1, _error(_refused(failure))
    except KeyboardInterrupt as failure:  # Ctrl-C reaches all processes of the terminal
        notes = "; ".join(("a DEL takes back what is left", *_notes(failure)))
        return 1, _error(CniError(Code.TRY_AGAIN, "interrupted", notes))
    except Exception as failure:
        return 1, _unforeseen(failure)


_CONF = "pycni.cni.conf"


def _carry_out(plugin: Plugin, call: Call, text: bytes) -> str:
    """The result of a call, "" where it has none."""
    from pycni.cni.conf import parse_conf
    from pycni.cni.result import dump, render_result

    conf = parse_conf(text, call.command, plugin.supported)
    _refuse_to_delegate_to_itself(plugin, conf)
    result = plugin.run(call, conf)
    return "" if result is None else dump(render_result(result, conf.cni_version))


def _error(failure: CniError) -> str:
    from pycni.cni.result import dump

    return dump(failure.as_json())


def _refuse_to_delegate_to_itself(plugin: Plugin, conf: NetConf) -> None:
    """`"ipam": {"type": "bridge"}` in a bridge network would start processes without end."""
    kind = conf.ipam.text("type")
    if kind and plugin.module.startswith("pycni.plugins.") and find_plugin(kind) is plugin:
        raise CniError(Code.INVALID_CONFIG, f"ipam.type is {kind}, which is no IPAM plugin", "name one, as host-local")


def _config(stdin: Callable[[], bytes]) -> bytes:
    try:
        return stdin()
    except OSError as failure:
        raise CniError(Code.IO, f"the network config cannot be read from stdin: {failure.strerror}") from failure


def about(plugin: Plugin) -> str:
    """What a call without CNI_COMMAND is told.

    Nomad (>= 0.4.0) and nerdctl (firewall >= 1.7.1) take the first version they find here for that of the reference
    plugins, to learn which features there are: so first comes the one whose features ours has, then our own.
    """
    return (
        f"CNI {plugin.drop_in} plugin v{REFERENCE_FEATURES} (pycni {pycni.__version__})\n"
        f"CNI protocol versions supported: {', '.join(plugin.supported)}\n"
    )


def read_all(fd: int) -> bytes:
    """stdin to its end, at most one byte more than parse_conf accepts."""
    parts: list[bytes] = []
    size = 0
    while size <= json_text.MAX_BYTES and (part := os.read(fd, 1 << 16)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _refused(failure: OSError) -> CniError:
    notes = "; ".join(_notes(failure))
    if failure.filename:
        return CniError(Code.IO, f"{failure.filename}: {failure.strerror}", notes)
    return CniError(Code.INTERNAL, f"{failure.strerror or failure}", notes)  # a request to the kernel


def _with_notes(failure: CniError) -> CniError:
    notes = _notes(failure)
    if not notes:
        return failure
    return CniError(failure.code, failure.msg, "; ".join(filter(None, (failure.details, *notes))))


def _notes(failure: BaseException) -> list[str]:
    return list(getattr(failure, "__notes__", ()))


def _unforeseen(failure: Exception) -> str:
    """The error object for a bug of ours, or for a module that an upgrade has taken away and not yet put back."""
    if not isinstance(failure, ImportError) or not (failure.name or "").startswith("pycni"):
        return _error(_bug(failure))
    reason = "; ".join((str(failure), *_notes(failure)))
    told = CniError(Code.TRY_AGAIN, "pycni is being replaced: repeat the call, an ADD after a DEL", reason)
    return json_text.dumps(told.as_json(), indent=4)  # what _error needs may be what is missing


def _bug(failure: Exception) -> CniError:
    import traceback

    traceback.print_exception(failure)
    return CniError(
        Code.INTERNAL,
        f"bug in pycni: {type(failure).__name__}: {failure}",
        "the traceback is on stderr; please report it",
    )
