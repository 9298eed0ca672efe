"""Multi-host labs on one machine: hosts made of namespaces, a real etcd, containers attached by the real executables.

`topology` reads the file, `plan` compares it with what runs, `building` carries the plan out, `running` finds the lab
again, `removal` takes it away. Everything lives in namespaces; /run/pycni-lab/NAME is the only trace on the machine.
"""
