"""Every analysis and every plan that a test makes is looked at as a whole (``graphprune.analysis.verify``)."""

from __future__ import annotations

from graphprune.analysis import verify

verify.always = True
