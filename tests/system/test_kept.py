"""A release that is kept is on record until the wanted one is current."""

from pathlib import Path

from pyinfra_solo.system import kept
from pyinfra_solo.system.kept import Kept

SHOP = Kept("shop", "a" * 40, "b" * 40, "no answer in 60 s")
BATCH = Kept("batch", "c" * 40, "main", "fatal: gone")


def test_records_are_read_by_the_name_of_the_app(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    assert kept.read(folder) == []
    for one in (SHOP, BATCH):
        kept.record(one, folder)
    assert kept.read(folder) == [BATCH, SHOP]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    kept.clear("shop", folder)
    kept.clear("shop", folder)
    assert kept.read(folder) == [BATCH]


def test_a_line_says_what_is_kept_and_why() -> None:
    assert str(SHOP) == "shop: kept at aaaaaaaaaaaa instead of bbbbbbbbbbbb: no answer in 60 s"
    assert str(BATCH) == "batch: kept at cccccccccccc instead of main: fatal: gone"


def test_a_file_that_is_no_record_is_skipped(tmp_path: Path) -> None:
    for name, text in {"a.json": "{", "b.json": "[]", "c.json": '{"app": 1}', "d.txt": "x"}.items():
        (tmp_path / name).write_text(text)
    assert kept.read(tmp_path) == []
