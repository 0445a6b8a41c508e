"""Actors in their process: who is read, and how calls run."""
