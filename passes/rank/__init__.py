"""Weights that become products of two."""
