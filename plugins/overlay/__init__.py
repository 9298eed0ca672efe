"""One network over many hosts: containers on VXLAN, who is where in etcd."""
