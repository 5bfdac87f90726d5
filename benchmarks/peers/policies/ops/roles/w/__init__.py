"""w: the role of the machine at work; all that it is made of stands in deploy.py."""

from pyinfra_solo.role import NoData, role


@role()
def w(data: NoData) -> None: ...
