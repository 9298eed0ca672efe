"""The container's lo, up."""
