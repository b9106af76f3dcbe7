"""``python -m NPCSynthLib`` does what ``npcsynth`` does."""

from .cli.main import main

main()
