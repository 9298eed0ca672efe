"""Address management: the types `pycni-ipam` and `host-local` (plugin), `static`, and any third party's (delegate)."""
