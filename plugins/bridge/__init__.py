"""A container's veth pair on a Linux bridge, with gateway, MASQUERADE to the outside and isolation of networks."""
