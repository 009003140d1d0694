"""The paths that the server answers, one kind a file; nothing is decided here."""
