"""Protocol versions: which we speak, and what each allows."""

from __future__ import annotations

from pycni.cni import json_text
from pycni.cni.errors import CniError, Code, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT = "1.1.0"
WITHOUT_VERSION = "0.1.0"  # what a config without cniVersion means: the key came with 0.2.0
_COMMAND_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def check_version(version: str, supported: Sequence[str] = SUPPORTED) -> str:
    """*version* as the protocol means it (empty is 0.1.0); CniError 1 unless it is exactly one of *supported*."""
    version = version or WITHOUT_VERSION
    if version not in supported:
        known = " ".join(f'"{each}"' for each in supported)
        raise CniError(
            Code.VERSION, "incompatible CNI versions", f"config is {shown(version)}, plugin supports [{known}]"
        )
    return version


def at_least(version: str, floor: str) -> bool:
    """Whether *version* is *floor* or newer; both are of the form "1.0.0", as `check_version` lets through."""
    return _numbers(version) >= _numbers(floor)


def check_command(command: str, version: str) -> None:
    """CniError 1 if *command* did not exist yet in *version* (CHECK: 0.4.0; GC, STATUS: 1.1.0)."""
    since = _COMMAND_SINCE.get(command)
    if since and not at_least(version, since):
        raise CniError(
            Code.VERSION,
            f"config version does not allow {command}",
            f"cniVersion is {version}, {command} came with {since}: raise cniVersion in the network config",
        )


def version_text(supported: Sequence[str] = SUPPORTED) -> str:
    """The answer to VERSION, one line. Its cniVersion is the newest we know, whatever a config says (as reference)."""
    answer = {"cniVersion": CURRENT, "supportedVersions": list(supported)}
    return json_text.dumps(answer).replace(" ", "") + "\n"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
