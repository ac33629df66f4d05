"""Detectors judged as detectors: boxes and classes that two models find, matched, without labels."""

from __future__ import annotations

from graphprune.verdict.detections.agreement import Agreement, agreement
from graphprune.verdict.detections.boxes import Found
from graphprune.verdict.detections.forms import AUTO, FORMS, Form, find, said

__all__ = ["AUTO", "FORMS", "Agreement", "Form", "Found", "agreement", "find", "said"]
