"""The command line ``npcsynth``: thin, one module for each command."""
