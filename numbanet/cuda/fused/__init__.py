"""Encoding, network and training in one kernel."""
