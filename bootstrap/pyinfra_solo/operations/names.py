"""Patterns of names that become files, unit files and arguments."""

import re

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
"""A service's, as a role's."""
ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
"""An account's or a group's (useradd(8), CAVEATS)."""
