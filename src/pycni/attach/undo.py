"""Take back an ADD that failed."""

from __future__ import annotations

from pycni.attach.release import release
from pycni.cni.errors import CniError, Code
from pycni.host.apply import OF_BRIDGE, OF_HOST, take_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pycni.change.ops import Op
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call
    from pycni.host.apply import Kernel
    from pycni.store import Store
    from pycni.store.attachments import Record


def undo_add(
    failure: BaseException,
    store: Store,
    record: Record,
    call: Call,
    conf: NetConf,
    *,
    kernel: Kernel | None = None,
    inverses: Sequence[Op] = (),
) -> None:
    """Release what the record owns and do the *inverses*, newest first; what stays behind becomes notes of *failure*.
    *kernel*: of the ADD, None before it has made anything.

    Where the kernel refused the link as existing (105), the one of that name is not this ADD's: it may be that of the
    same attachment, at work, after the state file was lost. It stays.

    What others share goes back to what it was only where no other attachment of the bridge, or of this host, can rely
    on it, decided under the store's lock: an ADD that begins meanwhile waits, and then finds what it needs missing and
    makes it.
    """
    left: list[str] = []
    try:
        if isinstance(failure, CniError) and failure.code == Code.ALREADY_ATTACHED:
            store.attachments.update(record.replace(host_links=()))
        release(store, record.attachment, call.replace(command="DEL"), conf)
    except CniError as second:
        left.append(second.msg)
    if kernel is not None:
        left += _take_back(store, record, kernel, inverses)
    for each in left:
        failure.add_note(each)


def _take_back(store: Store, record: Record, kernel: Kernel, inverses: Sequence[Op]) -> list[str]:
    with store.transaction():
        keep: tuple[type[Op], ...] = OF_HOST if store.attachments.has_others_on_host(record.attachment) else ()
        if store.attachments.has_others_on_bridge(record.attachment, record.bridge):
            keep = (*OF_BRIDGE, *OF_HOST)
        return take_back(inverses[::-1], kernel, keep)
