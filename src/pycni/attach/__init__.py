"""The life of one attachment, the same for every plugin that makes one: begin, undo, release, reclaim."""
