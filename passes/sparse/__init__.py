"""Sparse weights: patterns, masks, and orders of channels."""
