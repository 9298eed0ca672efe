"""The CNI plugins, one folder each: conf (value), plan and compare (pure), and a module for each command (order)."""
