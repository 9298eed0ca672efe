"""etcd, the shared memory of the hosts of a cluster: connections, transactions, leases, watches, and the schema.

Who wants what:

- `conf.EtcdConf`: where and how to reach etcd, parsed from an `"etcd"` object of a network config.
- `connect.open_client(conf)`: the `client.Client` to use. One call of an executable gets one over etcd's JSON gateway
  (6 ms, its first answer included); a resident process, which said `connect.keep_open()`, the same class over the
  `etcd3` package.
- `requests`: comparisons, operations and their answers, as values.
- `schema.Keys(prefix)`: every key there is; `records`: the values, which render to and parse from bytes.
- `claims`: take addresses that nobody else has, in one round trip where possible.
- `lease.Keeper`, `watch.Watch`, `mirror.Mirror`: for resident processes only, they need `connect.keep_open()`.
- `presence`: this host's record under a lease; `members`: which host takes part in which network; `networks`: networks
  with a VNI of their own; `blocks`: blocks of addresses.
- `barrier`: the rules by which a dead host's addresses become free; `nodes`: hosts declared dead, freed, returned.
- `audit`: what is wrong with the records; `overview`: networks and hosts as people ask for them; `versions`: releases
  of etcd that are too old.

Whatever cannot be reached in time is CniError 11 with the endpoints and their reasons.
"""
