"""The agent: pure decisions (machine, flows, suspending), and the shell around them."""
