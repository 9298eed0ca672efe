"""CNI plugins for Linux: bridge, port mapping, overlay and address management.

The parts, lowest first: `cni` (the protocol), `change` (plan, apply, undo), `firewall` (rules as values), `host` and
`store` (kernel and disk), `ipam`, `portmap` and `plugins`, `exe` (one command from environment to result), `cli`.
"""

__version__ = "0.1.0"
#: Whether all threads of this process live in the network namespace it began in, but for visits (host/netns.py).
stays_home = False
