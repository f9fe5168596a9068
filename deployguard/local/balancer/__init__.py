"""The balancer of a local fleet: a process of its own between users and instances, so that no one else's work can delay a request."""
