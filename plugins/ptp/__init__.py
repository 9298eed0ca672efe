"""A veth pair of each container's own, routed by the host: no bridge, every packet passes the gateway."""
