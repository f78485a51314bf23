"""What this station may run, and on whose word: a TUF repository checked here, from the network or from a folder."""
