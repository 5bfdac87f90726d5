"""Text from outside cannot move a console, break a message into lines, or carry a password."""

import sys
import unicodedata

import pytest

from pyinfra_solo.system.text import ACCOUNT, COMMIT, NAME, in_words, one_line, printable, without_password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, caf\u00e9, \u65e5\u672c\t!", "plain, caf\u00e9, \u65e5\u672c\t!"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\r\nb\x08\x9b2J", "a\\r\\nb\\x08\\x9b2J"),
        ("\u202egnp.exe\u2066\u200f", "\\u202egnp.exe\\u2066\\u200f"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\udcff\U000e0041", "\\udcff\\U000e0041"),
        ("\\x1b", "\\x1b"),
    ],
)
def test_what_could_move_a_console_is_shown_by_its_code(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_control_or_format_character_passes() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))

    found = set(map(unicodedata.category, printable(every).replace("\t", "")))
    assert not {"Cc", "Cf", "Cs", "Zl", "Zp"} & found


def test_white_space_collapses_to_one_line() -> None:
    assert one_line("\n a\r\n\tb\u2028c \x1c ") == "a b c"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("first\nsecond"), "first second"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("\n"), "ValueError"),
        (SyntaxError("invalid syntax", ("/srv/roles/web/__init__.py", 3, 1, "x")), "invalid syntax (__init__.py:3)"),
        (SyntaxError("no place"), "no place"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_with_its_place(error: Exception, words: str) -> None:
    assert in_words(error) == words


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://git.example.com/ops.git", "https://git.example.com/ops.git"),
        ("https://robot:hunter2@git.example.com/ops.git", "https://git.example.com/ops.git"),
        ("https://token@git.example.com/ops.git", "https://git.example.com/ops.git"),
        ("https://robot:hun@ter2@git.example.com/ops.git", "https://git.example.com/ops.git"),
        ("https://robot:hun ter\n2@git.example.com/ops.git", "https://git.example.com/ops.git"),
        ("https://robot:h?u#n@git.example.com/ops.git", "https://git.example.com/ops.git"),
        ("https://robot:hun/ter2@git.example.com/ops.git", "https://git.example.com/ops.git"),
        ("https://git.example.com/ops@v1", "https://git.example.com/ops@v1"),
        ("https://git.example.com:8443/ops@v1", "https://git.example.com:8443/ops@v1"),
        ("https://[::1]:8443/ops@v1", "https://[::1]:8443/ops@v1"),
        ("ssh://git@git.example.com:2222/ops.git", "ssh://git.example.com:2222/ops.git"),
        ("robot:hunter2@git.example.com/ops.git", "git.example.com/ops.git"),
        ("git@git.example.com:acme/ops.git", "git@git.example.com:acme/ops.git"),
        ("/srv/ops.git", "/srv/ops.git"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_user_and_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize("name", ["web", "a", "web-2", "job_worker", "w" * 63])
def test_a_name_is_a_letter_then_letters_digits_dashes(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["root", "_apt", "www-data", "a" * 32])
def test_an_account_s_name_is_one(name: str) -> None:
    assert ACCOUNT.fullmatch(name)


@pytest.mark.parametrize("name", ["", "1", "-a", "A", "a.b", "a\n", "\u0430", "a" * 64, "a\u0661"])
def test_other_text_is_no_name_account_or_commit(name: str) -> None:
    assert not any(form.fullmatch(name) for form in (NAME, ACCOUNT, COMMIT))


def test_a_commit_is_its_whole_hash() -> None:
    assert COMMIT.fullmatch("0123456789abcdef" * 2 + "01234567")
    assert not COMMIT.fullmatch("0" * 39)
