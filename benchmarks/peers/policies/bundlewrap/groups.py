"""None."""

groups: dict[str, object] = {}
