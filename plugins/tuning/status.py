"""STATUS of the tuning plugin: could an ADD succeed now?"""

from __future__ import annotations

import os

from pycni.cni.errors import CniError, Code
from pycni.host import tuning
from pycni.plugins.tuning import plan
from pycni.plugins.tuning.conf import TuningConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.conf import NetConf
    from pycni.cni.env import Call


def status(call: Call, netconf: NetConf) -> None:
    """STATUS: CniError 50 where no ADD could succeed now: a sysctl that the host does not allow, or nowhere to keep
    the old values; 7 for a wrong configuration."""
    conf = TuningConf.parse(netconf, call.replace(ifname="IFNAME"))
    try:
        plan.refuse_unlisted(conf, tuning.read_file(plan.ALLOWLIST))
    except CniError as failure:
        raise CniError(Code.NOT_AVAILABLE, failure.msg, failure.details) from failure
    if not conf.changes:
        return
    directory = conf.data_dir
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)  # ends at /
    if not os.path.isdir(directory) or not os.access(directory, os.W_OK | os.X_OK):
        raise CniError(
            Code.NOT_AVAILABLE,
            f"dataDir {conf.data_dir} cannot be written: {directory}",
            "the values that DEL restores are kept there: give a directory of the host's that root may write to",
        )
