"""The CNI protocol, versions 0.1.0 to 1.1.0: environment, network config, results, errors. Values only, no effects."""
