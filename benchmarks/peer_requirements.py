"""What is installed in the peers' virtual environment."""

from __future__ import annotations

PEER_VERSION = "1.10.1"
# hiredis: every contender parses replies with the same C parser.
PEER_REQUIREMENTS = (f"popoto=={PEER_VERSION}", "walrus", "redis-om", "hiredis")
