"""Loaded first into each worker of our own: what it says while it dies is not for the user.

What a user must know comes to the client and is said there, in one line. TILEMAPPER_DEBUG=1 keeps
it all.
"""

from __future__ import annotations

import os

if not os.environ.get("TILEMAPPER_DEBUG"):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
