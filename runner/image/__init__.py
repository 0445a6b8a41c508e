"""The worker image: what it is built from, and how it is looked at."""
