"""Workloads of a cluster as targets: Deployments, StatefulSets and DaemonSets, with the configuration that they read."""
