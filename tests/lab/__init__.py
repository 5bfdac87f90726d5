"""The boot lab: real init systems, a real network, git, and a cloud that can be made to fail."""
