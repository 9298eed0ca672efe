"""What pycni does to the host, and reads from it: netlink, namespaces, sysctls, firewall."""
