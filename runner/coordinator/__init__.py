"""The coordinator's shell: services, journal, event log, effects, fleet and wiring around the pure core."""
