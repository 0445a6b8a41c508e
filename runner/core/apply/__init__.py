"""What facts do to the state: the only code that changes it. One module for each kind of thing."""
