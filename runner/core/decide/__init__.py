"""Decisions: what an event leads to, as facts and commands. One module for each kind of thing."""
