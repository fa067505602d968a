"""The commands: each parses, loads, calls one function and prints.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""
