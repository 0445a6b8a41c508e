"""What boots machines: one interface (base), one file per provider."""
