"""The resident process of a host: the executables' commands without their start, and what must outlive a call."""
