"""What runs on a machine: the zygote it is forked from, its agent, its templates, and the executors of user code."""
