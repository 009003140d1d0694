"""What cannot be one of our documents is refused before it costs anything; nothing else is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilemapper import toml

MANY = 100_000
NOISE = "a.[{" * 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" + ".".join(["a"] * MANY) + "]", f"a name of {MANY} parts"),
        (".".join(["a"] * MANY) + " = 1", f"a name of {MANY} parts"),
        ("x = {" + " . ".join(["a"] * MANY) + " = 1}", f"a name of {MANY} parts"),
        ("[" + ".".join(['"a.b"'] * MANY) + "]", f"a name of {MANY} parts"),
        ("x = " + "[" * MANY, "nested deeper than 20"),
        ("x = " + "{a = " * MANY, "nested deeper than 20"),
        ("x = " + "[{a = " * MANY, "nested deeper than 20"),
    ],
)
def test_what_is_nested_without_end_is_not_parsed(text, words, monkeypatch):
    monkeypatch.setattr(tomllib, "loads", lambda text: pytest.fail("parsed"))
    with pytest.raises(ValueError, match=words):
        toml.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        f'x = "{NOISE}"',
        f"x = '{NOISE}'",
        f'x = """{NOISE}\n"{NOISE}""{NOISE}"""""',
        f"x = '''{NOISE}\n'{NOISE}''{NOISE}'''''",
        f'x = "\\"{NOISE}\\\\" # {NOISE}',
        f'x = """\\"""{NOISE}"""',
        f"x = '\\' # {NOISE}",
        f'x = "" # "{NOISE}',
        f"# {NOISE} it's\nx = 1 # \"\n",
        f'"{NOISE}" = "#"\n["b{NOISE}".\'{NOISE}\']\n',
        "x = [" + "1.5, " * 1000 + "]",
        "x = [" + "[], {}, " * 1000 + "]",
        "x = [" + "[1.5,\n2.5], # one]\n" * 1000 + "]",
        "".join(f"[[t]]\nx.y = {n}.5\n" for n in range(1000)),
        "x = 2026-01-02T03:04:05.678\r\n[a.b.c]\r\n",
        f"x = {'[' * 20}{']' * 20}\n{'.'.join(['a'] * 20)} = 1",
        "",
    ],
)
def test_dots_and_brackets_that_nest_nothing_are_not_counted(text):
    assert toml.loads(text) == tomllib.loads(text)


@given(st.text(alphabet="\"'\\#[]{}=., a1\n", max_size=20))
def test_every_short_document_is_taken_as_tomllib_takes_it(text):
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        expected = None
    try:
        assert toml.loads(text) == expected
    except ValueError:
        assert expected is None


@given(st.text(), st.sampled_from(['"""', "'''", '"', "'"]))
def test_no_text_in_quotes_is_counted(text, quotes):
    document = f"x = {quotes}{text.replace('.', NOISE)}{quotes}\n"
    try:
        expected = tomllib.loads(document)
    except tomllib.TOMLDecodeError:
        return
    if len(expected) == 1:  # or the text has closed the quotes and goes on as a document
        assert toml.loads(document) == expected


def test_a_file_without_end_is_read_no_further_than_its_bound():
    with pytest.raises(ValueError, match=f"larger than {toml.MOST_BYTES} bytes"):
        toml.read(Path("/dev/zero"))
