"""Every test may use the namespaces, hosts and snapshots of netns_fixtures."""

pytest_plugins = ["netns_fixtures"]
