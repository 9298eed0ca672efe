"""From an executable's start to its answer."""
