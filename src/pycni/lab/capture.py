"""tcpdump where a packet passes: on a host, in a container, at the switch's end of a cable."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from pycni.lab.breaking import links_of
from pycni.lab.errors import NOT_FOUND, LabError
from pycni.lab.running import RunningLab, tool

SNAPSHOT_BYTES = 262144


def capture(
    lab: RunningLab,
    target: str,
    *,
    interface: str = "",
    file: str = "",
    count: int = 0,
    seconds: float = 0.0,
    expression: Sequence[str] = (),
) -> int:
    """Run tcpdump at *target* until Ctrl-C, *count* packets or *seconds*; its exit code.

    *target* is HOST, HOST/CONTAINER, or switch:HOST[:INTERFACE], the other end of that host's cable. It writes pcap to
    *file* of this machine ("-": stdout), or decoded text to stdout. The interface is "any", where none is said.
    """
    argv = [tool("tcpdump"), "-n", "-s", str(SNAPSHOT_BYTES)]
    # -U: what was seen is in the file when somebody looks. tcpdump gives up root, and with it the right to the file.
    argv += ["-U", "-Z", "root", "-w", file if file in ("", "-") else os.path.abspath(file)] if file else ["-l"]
    argv += ["-c", str(count)] if count else []
    if target.startswith("switch:"):
        (link, *_) = links_of(lab, target.removeprefix("switch:"))
        argv += ["-i", interface or link.port, *expression]
        whole = lab.switch_argv(argv)
    else:
        whole = _in_network(lab, target, [*argv, "-i", interface or "any", *expression])
    return _run(whole, lab.environment(), seconds)


def _in_network(lab: RunningLab, target: str, argv: Sequence[str]) -> list[str]:
    """In the network namespace alone: the file is to be this machine's, and so is the tcpdump."""
    host, slash, container = target.partition("/")
    machine = lab.machine(host)
    if not machine.holder.alive():
        raise LabError(f"{host} is off", next_step=f"`pycni lab start host {host}` starts it", exit_code=NOT_FOUND)
    path = machine.file(lab.container(host, container).netns) if slash else machine.namespace()
    return [tool("nsenter"), f"--net={path}", "--", *argv]


def _run(argv: Sequence[str], environment: Mapping[str, str], seconds: float) -> int:
    """Until it ends. It gets Ctrl-C from the terminal itself and writes what it has: this process only waits.

    Whoever ends this process, such as timeout(1), means tcpdump.
    """
    with subprocess.Popen(argv, env=environment) as tcpdump:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) leaves it
                signal.signal(number, lambda heard, _: tcpdump.send_signal(heard))
        try:
            return tcpdump.wait(seconds or None)
        except subprocess.TimeoutExpired:
            tcpdump.send_signal(signal.SIGINT)
            return _ended(tcpdump.wait())
        except KeyboardInterrupt:
            tcpdump.send_signal(signal.SIGINT)  # where it was not the terminal that interrupted
            return _ended(tcpdump.wait())


def _ended(code: int) -> int:
    return 0 if code in (0, -signal.SIGINT) else code
