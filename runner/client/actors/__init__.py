"""Actors as their callers see them: classes, handles, calls, and the channels that carry them."""
