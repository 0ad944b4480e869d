"""What tests, demo and benches share: images made by hand, servers on loopback, readers of results."""
