"""Every test may use the namespaces, hosts and snapshots of netns_fixtures."""

import os
import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["netns_fixtures"]

# A shell's background job, and what some build services start, ignore Ctrl-C, and so would every program under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes to make says how busy the machine is: three files are tested at a time.
_BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fresh", _BUSY)
settings.register_profile("same", _BUSY, derandomize=True)  # what judges a change must not judge it by other examples
settings.register_profile("search", _BUSY, max_examples=3000)  # `make search`
settings.load_profile("same" if os.environ.get("NETNS_FIXTURES_STRICT") else "fresh")
