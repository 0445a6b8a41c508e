"""Values and references: encoding, shared memory and the refs that user code holds."""
