"""What runs in the process of the user: session, remote functions, streams. The public names are in `runner`."""
