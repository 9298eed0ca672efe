"""GC of the tuning plugin: kept files of attachments that are no more."""

from __future__ import annotations

import os

from pycni.cni.errors import CniError, Code
from pycni.cni.names import Attachment
from pycni.host import tuning
from pycni.plugins.tuning import plan
from pycni.plugins.tuning.conf import data_dir
from pycni.store.boot import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def gc(call: Call, netconf: NetConf) -> None:
    """GC: files of this network whose attachment is not listed go; without a list only those of an earlier boot.

    A file that does not name its network is the reference's plugin's, and stays.
    """
    directory = data_dir(netconf.keys)
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    failures: list[str] = []
    for name in names:
        path = f"{directory}/{name}"
        if not name.endswith((".json", ".json" + tuning.UNFINISHED)):
            continue
        try:
            if _is_over(plan.parse_kept(tuning.read_file(path)), netconf):
                tuning.remove_file(path)
        except OSError as failure:
            failures.append(f"{path}: {failure.strerror}")
    if failures:
        raise CniError(Code.INTERNAL, f"not everything was reclaimed: {'; '.join(failures)}", "GC again finishes it")


def _is_over(kept: plan.Kept | None, netconf: NetConf) -> bool:
    attachment = Attachment.parse(kept.owner) if kept is not None else None
    if kept is None or attachment is None or attachment.network != netconf.name:
        return False
    if netconf.valid_attachments is None:
        return kept.boot_id != boot_id()
    return attachment not in netconf.valid_attachments
