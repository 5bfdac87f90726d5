"""Our converge beside its peers: the same work, in turns, on one machine."""
