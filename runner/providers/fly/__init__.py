"""Machines of Fly.io: the Machines API, and `openapi.yaml`, the description that client and simulator are held to."""
