"""The command line ``ndarena`` and its commands, one module each."""
