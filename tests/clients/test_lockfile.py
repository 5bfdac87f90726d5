"""A lock file pins everything with hashes, and cannot say where to get it."""

from pathlib import Path

import pytest

from pyinfra_solo.clients import lockfile
from pyinfra_solo.errors import DataError
from tests.support.wheels import ZERO, House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no package"),
        ("alpha==1.0\n", "line 1: alpha has no hash"),
        ("# a comment\n\nalpha>=1.0 --hash=sha256:" + ZERO, "line 3: 'alpha>=1.0' is not"),
        ("--index-url http://evil.example\nalpha==1.0 --hash=sha256:" + ZERO, "line 1: "),
        ("alpha==1.0 \\\n  --find-links=/tmp --hash=sha256:" + ZERO, "line 1: "),
        ("alpha @ http://evil.example/alpha.whl --hash=sha256:" + ZERO, "line 1: "),
        ("-r other.txt", "line 1: '-r other.txt' is not"),
        ("alpha==1.0 --hash=md5:00", "line 1: "),
        ("alpha==1.0 \\\n    --hash=sha256:" + ZERO + " \\", "line 1: the file ends within this line"),
        (f"# hidden \ralpha==1.0 --hash=sha256:{ZERO} --index-url=http://evil.example", "line 2: "),
        (f"beta==1 \\\n  --hash=sha256:{ZERO}\n    # a comment\n\nalpha==1.0\n", "line 5: alpha has no hash"),
    ],
)
def test_a_lock_file_without_pins_and_hashes_is_refused(house: House, text: str, problem: str) -> None:
    house.lock.write_bytes(text.encode())
    with pytest.raises(DataError) as raised:
        house.prepare()
    assert str(raised.value).startswith(house.lock.name)
    assert problem in str(raised.value)
    assert not house.into.exists()


def test_a_lock_file_that_is_not_there_or_not_text_is_refused(house: House) -> None:
    house.lock.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        house.prepare()
    house.lock.unlink()
    with pytest.raises(DataError, match=r"There is no .*Commit one"):
        house.prepare()


def test_markers_extras_and_comments_are_understood() -> None:
    content = f"""\
# made by uv
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash=sha256:{ZERO} \\
    --hash=sha256:{ZERO}
    # via cryptography
moto[ec2, server]==5.2.5 --hash=sha512:{ZERO}{ZERO}
""".encode()
    assert lockfile.count(content, Path("requirements.lock")) == 2
