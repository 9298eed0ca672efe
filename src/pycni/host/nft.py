"""One nft transaction from text: libnftables in this process, else the `nft` program.

Only the first change on a host (the table itself) and an upgrade come this way; elements are encoded by
`pycni.host.nfnetlink`, because loading libnftables costs a fresh process 4 ms and a transaction through it 0.9 ms
(it asks the kernel for tables, sets and chains first).
"""

from __future__ import annotations

import errno
import os

from pycni.host.program import find, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIBRARY = "libnftables.so.1"

_ERRNO = {os.strerror(number): number for number in errno.errorcode}


def run_text(text: str) -> None:
    """Run the commands *text* as one transaction in the namespace of the calling thread.

    All or nothing. Raises OSError with the kernel's errno (ENOENT, EEXIST, EPERM …; EINVAL for text that nft does not
    understand) and nft's message; ENOSYS if neither libnftables nor nft is there.
    """
    library = load_library()
    if library is not None:
        _run_in_library(library, text)
    else:
        run_program(text)


def run_program(text: str, *, check_only: bool = False) -> None:
    """run_text by `nft -f -`; with *check_only* by `nft -c -f -`, and the kernel changes nothing."""
    program = find("nft")
    if program is None:
        raise OSError(errno.ENOSYS, f"neither {LIBRARY} nor the program nft is installed")
    status, _, message = run((program, *(("-c",) if check_only else ()), "-f", "-"), text)
    if status:
        raise _as_error(message)


def installed() -> bool:
    """Whether run_text has something to run with."""
    return find("nft") is not None or load_library() is not None


def load_library() -> Any:
    """libnftables by ctypes with its signatures set, None if it cannot be loaded."""
    import ctypes  # 3 ms: only on this path

    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32
    library.nft_ctx_new.argtypes, library.nft_ctx_new.restype = [number], pointer
    library.nft_ctx_free.argtypes, library.nft_ctx_free.restype = [pointer], None
    library.nft_ctx_buffer_output.argtypes = library.nft_ctx_buffer_error.argtypes = [pointer]
    library.nft_run_cmd_from_buffer.argtypes = [pointer, text]
    library.nft_ctx_get_error_buffer.argtypes, library.nft_ctx_get_error_buffer.restype = [pointer], text
    return library


def _run_in_library(library: Any, text: str) -> None:
    # A context holds one netlink socket of the namespace it was made in, and is not safe to share between threads:
    # this path is rare, so one is made for each transaction.
    context = library.nft_ctx_new(0)
    if not context:
        raise OSError(errno.ENOMEM, "nft_ctx_new failed")
    try:
        # Without these two libnftables prints to our stdout, which belongs to the CNI result.
        if library.nft_ctx_buffer_output(context) or library.nft_ctx_buffer_error(context):
            raise OSError(errno.ENOMEM, "libnftables cannot buffer its output")
        if library.nft_run_cmd_from_buffer(context, text.encode()):
            raise _as_error((library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace"))
    finally:
        library.nft_ctx_free(context)


def _as_error(message: str) -> OSError:
    """nft's error text ("Error: Could not process rule: No such file or directory" …) as an OSError."""
    line = message.strip().splitlines()[0] if message.strip() else "nft failed without a message"
    number = next((_ERRNO[reason] for reason in reversed(line.split(": ")) if reason in _ERRNO), errno.EINVAL)
    if "Operation not permitted" in line or "must be root" in message:
        number = errno.EPERM
    return OSError(number, f"nft: {line}")
