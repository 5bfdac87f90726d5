"""The machines of production, for pushes over SSH. A machine that converges itself is in no list.

Write `("web-1.example.com", {"role": "web"})`.
"""

hosts: list[tuple[str, dict[str, str]]] = []
