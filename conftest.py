"""Every test may use the namespaces, hosts and snapshots of netns_fixtures."""

import signal

pytest_plugins = ["netns_fixtures"]

# A shell's background job, and what some build services start, ignore Ctrl-C, and so would every program under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
