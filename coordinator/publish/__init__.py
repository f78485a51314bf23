"""Signing: the only place that touches a private key. Stations are given the public half and believe nothing else."""
