"""The CNI plugins, one folder each: conf (value), plan (pure), check, plugin (order)."""
