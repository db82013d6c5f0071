"""The command line of popoto; the extra `cli` brings what it needs."""
