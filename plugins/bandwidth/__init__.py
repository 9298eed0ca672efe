"""Limits on the rate of a container's interface, in both directions, by token buckets of the kernel."""
