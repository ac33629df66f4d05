"""How long each layer takes on a device, by its widths: tables that are measured here, on a target device, or given."""

from __future__ import annotations

from graphprune.verdict.latency.measure import DEVICES, How, prepare, profile
from graphprune.verdict.latency.table import Layer, Table, check, load
from graphprune.verdict.latency.tasks import collect

__all__ = ["DEVICES", "How", "Layer", "Table", "check", "collect", "load", "prepare", "profile"]
