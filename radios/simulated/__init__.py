"""Simulated radio worlds: virtual nodes, dongles and servers that speak the real protocols with code of their own."""
