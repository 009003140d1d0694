"""The fault kit: what is broken on purpose, and the oracle that checks what came of it."""
