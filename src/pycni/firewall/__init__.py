"""What pycni wants from the host's packet filter: values and their text, nothing that touches the kernel."""
