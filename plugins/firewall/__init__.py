"""The firewall plugin, chained behind one that makes an interface: what may pass to and from the container."""
