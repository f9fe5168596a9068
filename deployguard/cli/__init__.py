"""The command line. Every module imports what it needs inside its commands: start-up stays below 150 ms."""
