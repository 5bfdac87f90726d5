"""Judge whether another account could lead a program astray that opens a path by its name; see `held`."""

# No pathlib: a Path costs as much as the system call itself, for each of thousands of files.

import os

from pyinfra_solo.native.held import RefusedError, Walk, may_be_planted, others_may_write


class _WatchedWalk(Walk):
    exposed = False
    """True: another account may put or move a name that was walked through."""

    def _enter(self, name: str, *, make: bool) -> None:
        above = os.fstat(self.folder)
        super()._enter(name, make=make)
        self.exposed |= may_be_planted(os.fstat(self.folder), above)


def is_exposed(path: str, *, also_last: bool) -> bool:
    """Tell whether another account may put or move names on the way to `path`.

    also_last: in its last folder, too, or in the folder that it names; a link at the end is followed. A way that ends early is judged as
    far as it goes.
    """
    walk = _WatchedWalk(path, follow=also_last, make=False)
    try:
        held = walk.to_its_end()
    except OSError as error:
        last = others_may_write(os.fstat(walk.folder))
        os.close(walk.folder)
        return isinstance(error, RefusedError) or walk.exposed or last
    try:
        inside = held.is_folder() and held.status is not None and others_may_write(held.status)
        return walk.exposed or (also_last and (held.is_shared() or inside))
    finally:
        held.close()
