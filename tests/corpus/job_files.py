"""Job files that are none, lie, or ask for what cannot be: TOML of archives and of trainings."""

from __future__ import annotations

from collections.abc import Iterator

ARCHIVE = """kind = "archive"
[source]
scenes = "scenes"
[output]
template = "out/{stem}.tif"
[render]
model = "model"
"""
TRAINING = """kind = "training"
[trainer]
steps = 1
"""


def broken(good: str) -> Iterator[tuple[str, bytes]]:
    """What no TOML file may be, whatever it is for."""
    yield "empty", b""
    yield "of another kind", b'kind = "lunch"\n'
    yield "of a kind that is a list", b"kind = [1]\n"
    yield "cut", good.encode()[:-4] + b"= "
    yield "not UTF-8", good.encode() + b"# \xff\xfe\x80\n"
    yield "UTF-16", good.encode("utf-16")
    yield "of zeros", bytes(1000)
    yield "noise", bytes(range(256)) * 10
    yield "nested 100,000 lists", b"a = " + b"[" * 100_000
    yield "nested 100,000 tables", b"a = " + b"{a = " * 100_000
    yield "of a table of 100,000 names", b"[" + b".".join([b"a"] * 100_000) + b"]\n"
    yield "of a key twice", good.encode().replace(b"kind", b'kind = "x"\nkind', 1)
    yield "of a table twice", good.encode() + good.encode().partition(b"\n")[2]
    yield "of a number without end", b"x = " + b"9" * 5000 + b"\n" + good.encode()
    yield "of an unknown key", b"lunch = 1\n" + good.encode()
    yield "of a date that is none", b"x = 2026-02-31\n" + good.encode()
    yield "YAML", b"kind: archive\nsource:\n  scenes: a\n"
    yield "JSON", b'{"kind": "archive"}'
    yield "a text that never ends", good.encode() + b'x = """\n' + b"a" * 1000
    yield "a bomb of keys", good.encode() + b"".join(b"k%d = 1\n" % n for n in range(20_000))


def archives() -> Iterator[tuple[str, bytes]]:
    """Archive jobs whose values cannot be used."""
    yield from broken(ARCHIVE)
    changes = {
        "no scenes": ('"scenes"', "[]"),
        "scenes that are not there": ('"scenes"', '"nowhere"'),
        "scenes that are numbers": ('"scenes"', "7"),
        "scenes with a null": ('"scenes"', '"a\\u0000b.tif"'),
        "a template without a field": ("{stem}", "map"),
        "a template of another field": ("{stem}", "{stem.__class__}"),
        "a template that indexes": ("{stem}", "{stem[0]}"),
        "a template with a brace": ("{stem}", "{stem"),
        "a template with a format": ("{stem}", "{stem:>9999999999}"),
        "a template with a conversion": ("{stem}", "{stem!r:>999999999}"),
        "a template that is a script": (".tif", ".sh"),
        "a template with a null": ("out/", "out\\u0000/"),
        "a model that is not there": ('"model"', '"../nowhere"'),
        "a model with a null": ('"model"', '"./a\\u0000b"'),
        "an overlap of 2^64": ("[render]", "[render]\noverlap = 18446744073709551616"),
        "a gsd of nan": ("[render]", "[render]\ngsd = nan"),
        "a scale of inf": ("[render]", "[render]\nscale = [0.0, inf]"),
        "bounds of nan": ("[render]", "[render]\nbounds = [nan, nan, nan, nan]"),
        "bands of zero": ("[render]", "[render]\nbidx = [0, 0, 0]"),
        "a mask that is not there": ("[render]", '[render]\nmask = "nowhere.geojson"'),
        "a name that climbs": ("[source]", 'name = "../../up"\n[source]'),
        "retries of 10^9": ("[render]", "[run]\nretries = 1000000000\n[render]"),
        "a lease of nan": ("[render]", "[run]\nlease_s = nan\n[render]"),
        "min_free_gb of inf": ("[render]", "[run]\nmin_free_gb = inf\n[render]"),
    }
    for name, (old, new) in changes.items():
        assert old in ARCHIVE
        yield name, ARCHIVE.replace(old, new, 1).encode()


def trainings() -> Iterator[tuple[str, bytes]]:
    """Training jobs whose values cannot be used."""
    for name, data in broken(TRAINING):
        if name != "empty":  # which means the preset's
            yield name, data
    for line in (
        "steps = -1", "steps = 1e400", "steps = nan", 'steps = "many"', f"steps = {10**30}",
        "batch = 0", f"batch = {2**70}", "seed = -1", f"seed = {2**64}", "lr = nan",
    ):  # fmt: skip
        yield f"trainer {line}", TRAINING.replace("steps = 1", line).encode()
    for table, line in (
        ("networks", 'generator = "__import__"'),
        ("networks", "generator_arguments = {width = 10000000000}"),
        ("networks", "generator_arguments = {depth = 64}"),
        ("networks", "generator_arguments = [1]"),
        ("losses", "l1 = nan"),
        ("losses", "l1 = -1e300"),
        ("data", "crop = -5"),
        ("data", "crop = 1000000000"),
        ("augment", "scale = [nan, 1.0]"),
        ("augment", "scale = [0.0, inf]"),
    ):
        yield f"{table} {line}", f"{TRAINING}[{table}]\n{line}\n".encode()
