"""The databases of instances: made from a template, marked as isoenv's, dropped only then."""

from __future__ import annotations
