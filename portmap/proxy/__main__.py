"""`python3 -I -S …/pycni/portmap/proxy/__main__.py --control PATH|FD [--uid N]`: the process.

It starts as whoever calls it, binds its control socket, raises its limit of descriptors, and becomes *N*, a user
without any right, before it serves the first port: the sockets come bound, and nothing else here needs privileges.
"""

from __future__ import annotations

import os
import sys

if not __package__:  # run as a file, and -I keeps the directory out of sys.path
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))
    __package__ = "pycni.portmap.proxy"

from pycni.portmap.proxy.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
