"""The decision benchmark: the same streams into deployguard's analysis and into the rules of its peers."""
