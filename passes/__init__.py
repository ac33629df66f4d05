"""Passes: each chooses, or changes weights; strategies over the engine of ``graphprune``."""
