"""Coding agents: what is put into their settings, and what their hooks do."""
