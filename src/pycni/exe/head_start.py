"""A head start for DEL: the link begins to go before the modules are loaded that do the rest.

The kernel takes 20 ms to remove a link, which is more than half of a DEL, and loading most of pycni takes 5. So in a
process that is going to do one DEL, the link is named from the few values that this needs, checked as they will be
again by the ordinary way. That one then finds the link gone or going, and says whatever there is to say.
"""

from __future__ import annotations

from pycni.cni import json_text
from pycni.cni.errors import CniError
from pycni.cni.names import Attachment, check_network, host_link_name
from pycni.cni.versions import check_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pycni.cni.env import Call


def begin_del(call: Call, text: bytes) -> None:
    """Begin to remove the host link of the attachment that *call* and the network config *text* name, if they do."""
    try:
        conf = json_text.loads(text.decode())
        network, version = conf["name"], conf.get("cniVersion") or ""
        check_network(network)
        check_version(version)
    except (AttributeError, CniError, KeyError, RecursionError, TypeError, ValueError):
        return
    from pycni.host.links import begin

    begin((host_link_name(Attachment(network, call.container_id, call.ifname)),))
