"""The folder for all that is downloaded or built once: roots, layers, wheels, init systems."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder: $PYINFRA_SOLO_LAB_CACHE, or /var/cache/pyinfra-solo-lab."""
    return Path(os.environ.get("PYINFRA_SOLO_LAB_CACHE", "/var/cache/pyinfra-solo-lab"))
