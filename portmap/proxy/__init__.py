"""The userland proxy: one small process that serves every host port which address translation cannot.

It imports nothing of pycni but values and JSON, and is started by `client.command`. docs/proxy.md has the protocol.
"""
