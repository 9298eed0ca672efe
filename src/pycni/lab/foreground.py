"""A program in a PID namespace in place of this process: it gets the signals, the terminal, and gives the exit code.

execve does not change the PID namespace, a child is needed. This process waits for it and does nothing else.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterable, Mapping, Sequence

from pycni.host import pidns

PASSED_ON = frozenset(
    (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTSTP,
        signal.SIGCONT,
    )
)
_OURS = PASSED_ON | {signal.SIGCHLD, signal.SIGTTOU}  # TTOU: where it is blocked, who is not in front may tcsetpgrp
_SI_KERNEL = 0x80  # <asm-generic/siginfo.h>; Ctrl-C, for example: all in the process group have it
_PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)  # that Python ignores; an ignored signal would stay so over execve


def run(fd: int, argv: Sequence[str], environment: Mapping[str, str], *, shell: bool) -> int:
    """Run *argv* (absolute path first) in the PID namespace of *fd*: its exit code, or the negative of its signal.

    It stops, goes on and ends with this process, which leaves the signals blocked for `end_as`. *shell*: it is one that
    wants the terminal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it, as a caller may, is told nothing of children
    terminal = _terminal(shell=shell)
    pidns.enter(fd)  # for good: there is one child
    child = os.fork()
    if child == 0:
        _become(argv, environment, before, terminal)
    try:
        return _wait(child, terminal)
    finally:
        if terminal is not None:
            _front(terminal, os.getpgrp())
            os.close(terminal)


def end_as(code: int) -> int:
    """The exit code for *code* of `run`; where a signal ended the program, it ends this process in the same way."""
    if code >= 0:
        return code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program's core is the one
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.kill(os.getpid(), -code)
    return 128 - code


def _terminal(*, shell: bool) -> int | None:
    """The terminal, if the program can have it as a job of a shell has it: in a process group of its own, in front.

    It sees the number of such a group, which shells need: that of ours is none in its namespace. In a pipeline the
    others would be in the background then, which a shell makes of them in any case, and other programs do not.
    """
    if not shell and not (os.isatty(0) and os.isatty(1)):
        return None
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # the session has none
        return None
    if os.tcgetpgrp(terminal) == os.getpgrp():
        return terminal
    os.close(terminal)
    return None


def _front(terminal: int, group: int) -> None:
    try:
        os.tcsetpgrp(terminal, group)
    except OSError:  # the terminal was closed, or the group has ended
        pass


def _become(argv: Sequence[str], environment: Mapping[str, str], mask: Iterable[int], terminal: int | None) -> None:
    """In the child, which never returns."""
    try:
        pidns.end_with_parent()
        if terminal is not None:
            os.setpgid(0, 0)
            _front(terminal, os.getpgrp())
        for number in _PYTHONS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execve(argv[0], list(argv), dict(environment))
    except OSError as failure:
        os.write(2, f"{argv[0]}: {failure.strerror}\n".encode())
    finally:
        os._exit(126)


def _wait(child: int, terminal: int | None) -> int:
    while True:
        heard = signal.sigwaitinfo(_OURS)
        if heard.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
            if ended and not os.WIFSTOPPED(status):
                return os.waitstatus_to_exitcode(status)
            if ended:
                if terminal is not None:
                    _front(terminal, os.getpgrp())
                os.kill(os.getpid(), signal.SIGSTOP)  # SIGCONT is heard next
        elif heard.si_signo == signal.SIGCONT:
            if terminal is not None and os.tcgetpgrp(terminal) == os.getpgrp():  # not so after the shell's `bg`
                _front(terminal, child)
            (os.kill if terminal is None else os.killpg)(child, signal.SIGCONT)
        elif heard.si_signo in PASSED_ON and heard.si_code != _SI_KERNEL:
            os.kill(child, heard.si_signo)
