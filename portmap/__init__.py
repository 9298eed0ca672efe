"""Host ports published to containers."""
