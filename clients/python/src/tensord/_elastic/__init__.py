"""Elastic pools: one range of a device's addresses, into which pages are mapped and out of which they go."""
