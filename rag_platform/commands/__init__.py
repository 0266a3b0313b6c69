"""The commands of ``rag``, one file a group; ``cli.py`` puts them together."""
