"""Sysctls, MAC address and flags of an interface that another plugin made; DEL puts back what was there."""
