"""The environment of a plugin call (specification, "Parameters") and the text of CNI_ARGS."""

from __future__ import annotations

from pycni.cni.errors import CniError, Code, shown
from pycni.cni.names import check_container_id, check_ifname
from pycni.cni.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
# The specification asks for CNI_PATH in GC only; the reference wants it everywhere and every runtime gives it.
_REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),  # the namespace may be gone, its path empty
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}


class Call(Value):
    """One plugin call. Fields that the command does not use are empty."""

    command: str
    container_id: str = ""
    netns: str = ""  # any path; may not exist on DEL
    ifname: str = ""
    args: str = ""  # CNI_ARGS as it came: only plugins that use it parse it
    path: tuple[str, ...] = ()  # directories with plugins, in order of search
    netns_override: bool = False  # CNI_NETNS may be the caller's own namespace
    environ: tuple[tuple[str, str], ...] = ()  # all of it: delegates get the same
    executable: str = ""  # the file that was called: an IPAM plugin that is the same file is ours
    netns_fd: int = -1  # a descriptor of netns, where the caller passed one: its path need not exist for us
    mac: bytes = b""  # of a delegated DEL: what the interface had to the end, where the delegating plugin saw it


def parse_call(environ: Mapping[str, str]) -> Call:
    """The call that *environ* describes; CniError 4 if it lacks variables (all named at once) or one is invalid."""
    command = environ.get("CNI_COMMAND", "")
    if command and command not in _REQUIRED:
        raise CniError(
            Code.ENVIRONMENT, f"unknown CNI_COMMAND: {shown(command)[1:-1]}", f"known are {', '.join(COMMANDS)}"
        )
    missing = [name for name in _REQUIRED.get(command, ("CNI_COMMAND",)) if not environ.get(name)]
    if missing:
        raise CniError(Code.ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")
    everything = tuple(environ.items())
    if command in ("GC", "STATUS", "VERSION"):  # these speak of the network or the plugin, not of an attachment
        return Call(command, path=_directories(environ), environ=everything)
    container_id, ifname = environ["CNI_CONTAINERID"], environ["CNI_IFNAME"]
    check_container_id(container_id)
    check_ifname(ifname)
    return Call(
        command=command,
        container_id=container_id,
        netns=environ.get("CNI_NETNS", ""),
        ifname=ifname,
        args=environ.get("CNI_ARGS", ""),
        path=_directories(environ),
        netns_override=environ.get("CNI_NETNS_OVERRIDE", "").upper() in ("1", "TRUE"),
        environ=everything,
    )


def parse_args(text: str, known: Sequence[str]) -> dict[str, str]:
    """The pairs of CNI_ARGS *text* (`K=V;K2=V2`) whose key is in *known*; the last of equal keys wins.

    Keys are case-sensitive. A pair without exactly one `=` is always an error; a key that is not in *known* is one
    unless the text also says IgnoreUnknown=1 (or true). CniError 4.
    """
    found: dict[str, str] = {}
    unknown: list[str] = []
    ignore_unknown = False
    for pair in text.split(";") if text else ():
        if pair.count("=") != 1:
            raise CniError(
                Code.ENVIRONMENT,
                f"ARGS: invalid pair {shown(pair)}",
                "CNI_ARGS is K=V;K2=V2 with exactly one = in each pair and no ; at the end",
            )
        key, value = pair.split("=")
        if key == "IgnoreUnknown":
            ignore_unknown = _parse_switch(pair, value)
        elif key not in known:
            unknown.append(pair)
        if key in known:
            found[key] = value
    if unknown and not ignore_unknown:
        raise CniError(
            Code.ENVIRONMENT,
            f"ARGS: unknown args [{' '.join(shown(pair) for pair in unknown[:20])}]",
            f"CNI_ARGS may hold {', '.join((*known, 'IgnoreUnknown'))}; add IgnoreUnknown=1 to allow others",
        )
    return found


def _parse_switch(pair: str, value: str) -> bool:
    if value.lower() in ("1", "true"):
        return True
    if value.lower() in ("0", "false"):
        return False
    raise CniError(Code.ENVIRONMENT, f"ARGS: error parsing value of pair {shown(pair)}", "use 1, true, 0 or false")


def _directories(environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(part for part in environ.get("CNI_PATH", "").split(":") if part)
