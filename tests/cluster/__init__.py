"""A real Kubernetes cluster on this machine, made of plain binaries, for the tests that need one (docs/cluster.md)."""
