"""The pure core: state machines and scheduler. No I/O, clock, randomness, environment or asyncio."""
