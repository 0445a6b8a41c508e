"""The shipped coordinator, agent machine and session machine in one process, on a simulated network and clock."""
