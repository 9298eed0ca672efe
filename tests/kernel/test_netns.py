"""Namespaces and sysctls: opening, naming, running inside, and what must never happen to the caller's own thread."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pycni
from netns_fixtures import Namespace, wait_until
from pycni.cni.errors import CniError, Code
from pycni.host import netns, rtnl, sysctl

pytestmark = pytest.mark.needs("root", "tool:ip", "kernel:veth")


@pytest.fixture
def namespace(make_namespace: Callable[..., Namespace]) -> Namespace:
    return make_namespace()


@pytest.fixture
def fd(namespace: Namespace) -> Iterator[int]:
    opened = netns.open_netns(namespace.path)
    yield opened
    os.close(opened)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def failure_of(path: str | os.PathLike[str]) -> CniError:
    with pytest.raises(CniError) as failure:
        netns.open_netns(os.fspath(path))
    assert failure.value.code == Code.NETNS
    return failure.value


def test_descriptor_is_not_inherited(fd: int) -> None:
    """Programs started meanwhile do not keep the namespace alive."""
    assert not os.get_inheritable(fd)


def test_missing_path_is_error_8(tmp_path: Path) -> None:
    """The path and the reason are named."""
    missing = tmp_path / "gone"
    assert failure_of(missing).msg == f'failed to open netns "{missing}": no such file or directory'
    assert "null" in failure_of("/proc/\0").msg


def test_plain_file_directory_and_fifo_are_no_namespaces(tmp_path: Path) -> None:
    """The magic number of the file system is named; a FIFO is not waited for; no descriptor is left."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    before = descriptors()
    for path in (tmp_path / "fifo", tmp_path / "file", tmp_path):
        magic = subprocess.run(
            ["stat", "-f", "-c", "%t", path], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert failure_of(path).msg == f'unknown FS magic on "{path}": {magic}'
    assert failure_of("/proc/self/status").msg == 'unknown FS magic on "/proc/self/status": 9fa0'
    assert descriptors() == before


def test_namespace_of_another_kind_is_refused() -> None:
    """A mount namespace is a namespace, and of no use."""
    assert failure_of("/proc/self/ns/mnt").msg == '"/proc/self/ns/mnt" is not a network namespace'


def test_identity_tells_namespaces_apart(
    namespace: Namespace, fd: int, make_namespace: Callable[..., Namespace]
) -> None:
    """The same by descriptor, by path and from inside; another one's differs, and so does ours."""
    name = netns.identity(fd)
    assert netns.inside(fd, netns.own_identity) == name
    assert netns.exists(namespace.path, name)
    other = make_namespace()
    assert not netns.exists(other.path, name)
    assert netns.own_identity() != name


def test_path_that_is_gone_exists_no_more(namespace: Namespace, fd: int, tmp_path: Path) -> None:
    """No file, no directory, or a file that is no namespace: not that namespace."""
    name = netns.identity(fd)
    (tmp_path / "file").touch()
    assert not netns.exists(str(tmp_path / "gone"), name)
    assert not netns.exists(str(tmp_path / "file" / "below"), name)
    assert not netns.exists(str(tmp_path / "file"), name)


def test_inside_gives_the_answer_and_moves_nobody(namespace: Namespace, fd: int) -> None:
    """Arguments and answer pass, None too; the caller's thread stays in its namespace."""
    before = netns.own_identity()
    assert netns.inside(fd, divmod, 7, 2) == (3, 1)
    assert netns.inside(fd, list) == []
    assert netns.inside(fd, dict.get, {}, "x") is None
    assert netns.own_identity() == before


def test_socket_opened_inside_stays_inside(namespace: Namespace, fd: int) -> None:
    """The links it shows are those of its namespace, from whatever thread it is used."""
    namespace.ip("link", "add", "name", "only-here", "type", "veth", "peer", "name", "other")
    with rtnl.in_namespace(fd) as there, rtnl.Netlink() as here:
        assert there.link("only-here") is not None
        assert here.link("only-here") is None


class Interrupt(BaseException):
    """Nothing that `except Exception` would catch."""


def test_exceptions_come_back_with_their_traceback(fd: int) -> None:
    """Every kind of exception, with the frames of the function that raised it."""

    def breaks() -> None:
        raise Interrupt("within")

    with pytest.raises(Interrupt, match="within") as failure:
        netns.inside(fd, breaks)
    assert "breaks" in [frame.name for frame in traceback.extract_tb(failure.value.__traceback__)]


def test_interrupt_waits_for_the_function(fd: int) -> None:
    """A signal that raises in the caller is raised when the function has ended and the thread is back: nothing runs
    on, and nothing runs in the wrong namespace."""
    ended: list[bool] = []

    def handler(*_: object) -> None:
        raise Interrupt("signal")

    def interrupts(caller: int) -> None:
        signal.pthread_kill(caller, signal.SIGUSR1)
        assert signal.SIGUSR1 in signal.sigpending()
        ended.append(True)

    home = netns.own_identity()
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Interrupt, match="signal"):
            netns.inside(fd, interrupts, threading.get_ident())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended == [True]
    assert netns.own_identity() == home


def test_a_thread_that_cannot_return_ends_its_process(namespace: Namespace) -> None:
    """Better a killed call, which leaves its record, than one that goes on in the container's namespace."""
    code = (
        "import os, sys; from pycni.host import netns; netns._setns(); move = netns._move; calls = []\n"
        "def once(fd):\n"
        "    calls.append(fd)\n"
        "    if len(calls) > 1: raise OSError(1, 'planted')\n"
        "    move(fd)\n"
        "netns._move = once\n"
        "netns.inside(netns.open_netns(sys.argv[1]), os.getpid); print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code, namespace.path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_descriptor_that_is_no_namespace_is_an_oserror() -> None:
    """EINVAL for a file, EBADF for nothing; the function is not run."""
    ran: list[int] = []
    with open("/dev/null") as file, pytest.raises(OSError, match="Invalid argument"):
        netns.inside(file.fileno(), ran.append, 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        netns.inside(1_000_000, ran.append, 1)
    assert ran == []


def test_nothing_is_leaked(fd: int) -> None:
    """After 200 rounds, good and bad, no thread, no descriptor and no exception cycle is left."""
    gc.collect()
    before = descriptors()
    strangers = threads() - threading.active_count()  # libraries of other tests have threads that are not Python's
    gc.disable()
    try:
        for _ in range(100):
            rtnl.in_namespace(fd).close()
            with pytest.raises(ZeroDivisionError):
                netns.inside(fd, divmod, 1, 0)
    finally:
        gc.enable()
    wait_until(lambda: threads() - threading.active_count() == strangers)
    assert descriptors() == before


def test_exception_holds_nothing_once_handled(fd: int) -> None:
    """What was in the frame of the failed function goes with the exception, not at some later collection."""

    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    def holds_and_breaks() -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        raise Interrupt

    gc.disable()
    try:
        with pytest.raises(Interrupt):
            netns.inside(fd, holds_and_breaks)
        assert held[0]() is None
    finally:
        gc.enable()


def test_many_threads_at_once(make_namespace: Callable[..., Namespace]) -> None:
    """Calls from several threads into several namespaces do not mix."""
    places = [make_namespace() for _ in range(3)]
    opened = [netns.open_netns(place.path) for place in places]
    wrong: list[str] = []

    def work(fd: int) -> None:
        for _ in range(50):
            if netns.inside(fd, netns.own_identity) != netns.identity(fd):
                wrong.append("mixed")

    workers = [threading.Thread(target=work, args=(fd,)) for fd in opened]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for one in opened:
        os.close(one)
    assert wrong == []


def test_sysctl_is_that_of_the_threads_namespace(namespace: Namespace, fd: int) -> None:
    """Written inside, it is seen inside and not outside."""
    key = "net/ipv4/conf/lo/arp_notify"
    before = sysctl.read(key)
    netns.inside(fd, sysctl.write, key, "1")
    assert netns.inside(fd, sysctl.read, key) == namespace.sysctl(key) == "1"
    assert sysctl.read(key) == before


def test_absent_sysctl(fd: int) -> None:
    """None when read, ENOENT when written."""
    assert netns.inside(fd, sysctl.read, "net/ipv4/conf/no-such-link/arp_notify") is None
    with pytest.raises(FileNotFoundError):
        netns.inside(fd, sysctl.write, "net/ipv4/conf/no-such-link/arp_notify", "1")


def test_wrong_value_is_the_kernels_error(fd: int) -> None:
    """EINVAL, not silence, though the write is small."""
    with pytest.raises(OSError, match="Invalid argument"):
        netns.inside(fd, sysctl.write, "net/ipv4/ip_forward", "perhaps")


def test_sysctl_with_that_value_is_not_written(fd: int, namespace: Namespace) -> None:
    """Blanks are no difference; forwarding is not set anew, which would reset the per-link settings below it."""
    netns.inside(fd, sysctl.write, "net/ipv4/ip_forward", "1")
    namespace.sysctl("net/ipv4/conf/lo/forwarding", "0")
    netns.inside(fd, sysctl.write, "net/ipv4/ip_forward", " 1\n")
    assert namespace.sysctl("net/ipv4/conf/lo/forwarding") == "0"
    netns.inside(fd, sysctl.write, "net/ipv4/ping_group_range", "5 7")
    assert netns.inside(fd, sysctl.read, "net/ipv4/ping_group_range") == "5\t7"


@pytest.mark.parametrize("key", ["../sys/kernel/hostname", "net/../kernel/hostname", "/etc/passwd", "net/\0"])
def test_key_outside_of_proc_sys_is_refused(key: str) -> None:
    """No key leads out of /proc/sys."""
    with pytest.raises(OSError, match="not a key"):
        sysctl.read(key)
    with pytest.raises(OSError, match="not a key"):
        sysctl.write(key, "x")


# -- a process that stays at home --------------------------------------------------------------------------------------


@pytest.fixture
def staying(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in an executable or the agent; what is kept of home is forgotten again."""
    monkeypatch.setattr(pycni, "stays_home", True)
    monkeypatch.setattr(netns, "_home", None)
    monkeypatch.setattr(sysctl, "_directories", {})
    yield
    for opened in ([netns._home[0]] if netns._home else []) + list(sysctl._directories.values()):
        os.close(opened)


@pytest.mark.usefixtures("staying")
def test_who_stays_home_sees_where_a_visit_is(make_namespace: Callable[..., Namespace]) -> None:
    """At home, on a visit, on a visit from a visit, and back on each way: its own namespace and its own sysctls."""
    key = "net/ipv4/conf/all/arp_notify"
    places = [make_namespace() for _ in range(3)]
    for number, place in enumerate(places):
        place.sysctl(key, str(number % 2))
    opened = [netns.open_netns(place.path) for place in places]
    names = [netns.identity(one) for one in opened]

    def seen() -> tuple[str, str | None]:
        return netns.own_identity(), sysctl.read(key)

    def visit() -> list[tuple[str, str | None]]:
        return [seen(), netns.inside(opened[2], seen), seen()]

    try:
        told = places[0].in_namespace(lambda: [seen(), *netns.inside(opened[1], visit), seen()])
        assert told == [(names[at], str(at % 2)) for at in (0, 1, 2, 1, 0)]
        places[0].in_namespace(lambda: netns.inside(opened[2], sysctl.write, key, "1"))
        assert [place.sysctl(key) for place in places] == ["0", "1", "1"]
    finally:
        for one in opened:
            os.close(one)


@pytest.mark.usefixtures("staying")
def test_who_stays_home_sees_links_that_come_and_go(namespace: Namespace) -> None:
    """What is kept are directories, not what is in them; a key that is not there is None, and ENOENT when written."""
    key = "net/ipv6/conf/br0/disable_ipv6"

    def life() -> list[str | None]:
        out = [sysctl.read(key)]
        for _ in range(2):
            namespace.ip("link", "add", "br0", "type", "bridge")
            sysctl.write(key, "1")
            out.append(sysctl.read(key))
            namespace.ip("link", "delete", "br0")
            out.append(sysctl.read(key))
        return [*out, sysctl.read("net/nothing/at/all")]

    assert namespace.in_namespace(life) == [None, "1", None, "1", None, None]
    with pytest.raises(FileNotFoundError):
        namespace.in_namespace(lambda: sysctl.write(key, "1"))
