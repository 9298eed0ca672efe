"""Every test may use the namespaces, hosts and snapshots of netns_fixtures."""

import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["netns_fixtures"]

# A shell's background job, and what some build services start, ignore Ctrl-C, and so would every program under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes to make says how busy the machine is: three files are tested at a time.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
