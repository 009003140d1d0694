"""Training sets that are damaged, lie, or are none; and some that are only odd."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.corpus.checkpoints import Calls
from tests.corpus.hostile import png, vrt
from tests.corpus.tiff import Layout, tiff

SIDE = 64
REFUSED = "refused"  # by check and by train
FOUND = "found"  # by check alone: training goes on without harm, or may
FINE = "fine"

Make = Callable[[Path], object]


def picture(seed: int, side: int = SIDE) -> Image.Image:
    """A and B side by side: blocks of colour, and the same blocks in other colours."""
    dice = np.random.default_rng(seed)
    coarse = dice.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    first = coarse.repeat(8, 0).repeat(8, 1)
    return Image.fromarray(np.concatenate([first, 255 - first // 2], 1))


def pair(path: Path, seed: int, **how: object) -> None:
    """One side-by-side image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path, **how)


def cases() -> Iterator[tuple[str, Make, str]]:
    """A name, what makes the set in an empty folder, and what has to become of it."""
    for name, data in _pictures().items():
        yield f"an image {name}", _with(data), REFUSED
    yield from _modes()
    yield from _folders()
    for name, data in _arrays().items():
        yield f"npz {name}", _npz(data), REFUSED


def _three(folder: Path) -> None:
    for number in range(3):
        pair(folder / f"{number}.png", number)


def _with(data: bytes, name: str = "9.png") -> Make:
    def make(folder: Path) -> None:
        _three(folder)
        (folder / name).write_bytes(data)

    return make


def _encoded(kind: str, seed: int = 5) -> bytes:
    stream = io.BytesIO()
    picture(seed).save(stream, kind)
    return stream.getvalue()


def _pictures() -> dict[str, bytes]:
    whole, jpeg = _encoded("PNG"), _encoded("JPEG")
    comment = b"Comment\0\0" + zlib.compress(bytes(2**27), 9)
    bmp = struct.pack("<IHHIIiiHHI", 0, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0)
    chunk = struct.pack(">I", len(comment)) + b"zTXt" + comment
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + comment))
    return {
        "that is empty": b"",
        "that is text": b"hello",
        "that is zeros": bytes(5000),
        "cut in half": whole[: len(whole) // 2],
        "cut behind its header": whole[:40],
        "cut before its end": whole[:-30],
        "with a bit flipped": whole[:100] + bytes([whole[100] ^ 4]) + whole[101:],
        "that is half a JPEG": jpeg[: len(jpeg) // 2],
        "that is a JPEG's header": jpeg[:300],
        "of 60,000 px a side": png(60_000, 60_000),
        "of 2^31 px a side": png(2**31 - 1, 2**31 - 1),
        "of 20,000 px a side": png(20_000, 20_000),
        "of no pixel": png(0, 0),
        "with a comment of 128 MiB": png(2 * SIDE, SIDE, extra=chunk),
        "that is a VRT": vrt("/etc/hostname").encode(),
        "that is a pickle": pickle.dumps(Calls(os.mkdir, "ran")),
        "that is PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ran) (w) file\n",
        "that is SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
        "that is a GIF bomb": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(100),
        "that is a PPM bomb": b"P6 100000 100000 255\n" + bytes(100),
        "that is an icon": b"\0\0\1\0\1\0" + bytes(100),
        "that is a WebP's header": b"RIFF\x64\0\0\0WEBPVP8 " + bytes(100),
        "that is a BMP bomb": b"BM" + bmp + bytes(100),
    }  # fmt: skip


def _modes() -> Iterator[tuple[str, Make, str]]:
    def converted(mode: str, suffix: str = "png") -> Make:
        def make(folder: Path) -> None:
            for number in range(3):
                picture(number).convert(mode).save(folder / f"{number}.{suffix}")

        return make

    def array(values: np.ndarray) -> Make:
        def make(folder: Path) -> None:
            _three(folder)
            Image.fromarray(values).save(folder / "9.png")

        return make

    for mode in ("L", "LA", "P", "RGBA"):
        yield f"images of mode {mode}", converted(mode), FINE
    # Two colours, dithered, look alike at many places.
    yield "images of mode 1", converted("1"), FOUND
    yield "images of CMYK", converted("CMYK", "jpg"), FINE
    yield "an image of 16 bits", array(np.zeros((SIDE, 2 * SIDE), np.uint16)), REFUSED
    yield "an image of odd width", array(np.zeros((SIDE, 2 * SIDE - 1, 3), np.uint8)), REFUSED
    yield "an image of one pixel", array(np.zeros((1, 1, 3), np.uint8)), REFUSED
    yield "an image of another size", array(np.asarray(picture(9, 72))), REFUSED
    yield "an image of one colour", array(np.zeros((SIDE, 2 * SIDE, 3), np.uint8)), FOUND
    yield "the same image twice", array(np.asarray(picture(1))), FOUND

    def turned(folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        for number in range(3):
            pair(folder / f"{number}.jpg", number, exif=exif, quality=95)

    yield "images that say they are turned", turned, FINE


def _folders() -> Iterator[tuple[str, Make, str]]:
    def sides(first: tuple[str, ...], second: tuple[str, ...]) -> Make:
        def make(folder: Path) -> None:
            for side, names in (("A", first), ("B", second)):
                (folder / side).mkdir()
                for number, name in enumerate(names):
                    image = picture(number).crop((0, 0, SIDE, SIDE))
                    image.save(folder / side / name, "PNG")

        return make

    yield "nothing", lambda folder: None, REFUSED
    yield "no folder", lambda folder: folder.rmdir(), REFUSED
    yield "a file in its place", lambda folder: (folder.rmdir(), folder.write_text("a")), REFUSED
    yield "folders without images", sides((), ()), REFUSED
    yield "a side without images", sides(("a.png", "b.png"), ()), REFUSED
    yield "sides of other names", sides(("a.png", "b.png"), ("c.png", "d.png")), REFUSED
    yield "one unpaired image", sides(("a.png", "b.png", "c.png"), ("a.png", "b.png")), REFUSED
    yield "two suffixes of one name", sides(("a.png", "a.jpg"), ("a.png", "a.jpg")), REFUSED
    yield (
        "a folder named as an image",
        lambda folder: (_three(folder), (folder / "9.png").mkdir()),
        REFUSED,
    )
    yield (
        "a pipe named as an image",
        lambda folder: (_three(folder), os.mkfifo(folder / "9.png")),
        REFUSED,
    )
    yield "a link to nothing", _linked("9.png", "nothing.png"), REFUSED
    yield "a link to itself", _linked("9.png", "9.png"), REFUSED
    yield "a link to a device", _linked("9.png", "/dev/zero"), REFUSED
    yield "a folder that links to itself", _linked("more", "."), FINE
    yield (
        "a TIFF cut short",
        _with(tiff(np.zeros((3, SIDE, 2 * SIDE), np.uint8))[:-90], "9.tif"),
        REFUSED,
    )
    sixteen = tiff(np.zeros((3, SIDE, 2 * SIDE), np.uint16))
    yield "a TIFF of 16 bits", _with(sixteen, "9.tif"), REFUSED
    bands = tiff(np.zeros((7, SIDE, 2 * SIDE), np.uint8))
    yield "a TIFF of seven bands", _with(bands, "9.tif"), REFUSED
    huge = tiff(
        np.zeros((3, 16, 16), np.uint8), Layout(tile=(16, 16), deflate=True),
        fields={256: (4, 200_000), 257: (4, 200_000), 322: (4, 8192), 323: (4, 8192),
                324: (4, (0,) * 625), 325: (4, (0,) * 625)},
    )  # fmt: skip
    yield "a TIFF of 200,000 px a side", _with(huge, "9.tif"), REFUSED
    fair = tiff(
        np.zeros((3, 16, 16), np.uint8), Layout(tile=(16, 16), deflate=True),
        fields={256: (4, 40_000), 257: (4, 40_000), 322: (4, 4096), 323: (4, 4096),
                324: (4, (0,) * 100), 325: (4, (0,) * 100)},
    )  # fmt: skip
    yield "a TIFF of 40,000 px a side", _with(fair, "9.tif"), REFUSED
    disguised = vrt("/etc/hostname").encode()
    yield "a VRT named .tif", _with(disguised, "9.tif"), REFUSED

    def odd_names(folder: Path) -> None:
        for number, name in enumerate((" ", "a\nb", "-rf", "ü\u202e", "x" * 200, "%s{}", "$(ran)")):
            pair(folder / f"{name}.png", number)

    yield "odd names", odd_names, FINE

    def not_utf8(folder: Path) -> None:
        _three(folder)
        with open(os.fsencode(folder) + b"/\xff\xfe.png", "wb") as file:  # noqa: PTH123  bytes
            file.write(b"no image")

    yield "a damaged image whose name is no UTF-8", not_utf8, REFUSED


def _made(make: Callable[[Path], object]) -> Make:
    return lambda folder: (_three(folder), make(folder / "9.png"))


def _linked(name: str, target: str) -> Make:
    return lambda folder: (_three(folder), (folder / name).symlink_to(target))


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def _arrays() -> dict[str, bytes]:
    good = _npy(np.zeros((3, SIDE, SIDE, 3), np.uint8))
    packed = zipfile.ZIP_DEFLATED

    def archive(how: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", how) as file:
            for name, data in members.items():
                file.writestr(f"{name}.npy", data)
        return stream.getvalue()

    def header(text: str, behind: int = 100) -> bytes:
        data = text.encode().ljust(117) + b"\n"
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(data)) + data + bytes(behind)

    def shaped(shape: str, descr: str = "'|u1'", fortran: bool = False) -> bytes:
        return header(f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}")

    objects = _npy(np.array([Calls(os.mkdir, "ran")] * 3, object))
    whole = archive(A=good, B=good)
    vast = shaped("(1000000, 10000, 10000, 3)")
    zeros = good[:128] + bytes(2**28)
    made = {
        "of objects": archive(A=objects, B=objects),
        "of objects beside pairs": archive(A=good, B=good, names=objects),
        "of text": archive(A=b"hello", B=b"hello"),
        "of nothing": archive(),
        "of other names": archive(C=good, D=good),
        "of one side": archive(A=good),
        "of floats": archive(A=_npy(np.zeros((3, 64, 64, 3))), B=good),
        "of other counts": archive(A=good, B=_npy(np.zeros((2, SIDE, SIDE, 3), np.uint8))),
        "of no pair": archive(A=_npy(np.zeros((0, 64, 64, 3), np.uint8)), B=good),
        "of flat arrays": archive(A=_npy(np.zeros(9, np.uint8)), B=good),
        "of a vast array": archive(A=vast, B=vast),
        "of a vast array, packed": archive(packed, A=vast, B=vast),
        "of a negative shape": archive(A=shaped("(-1, 64, 64, 3)"), B=good),
        "of a shape that overflows": archive(A=shaped("(4294967296, 4294967296, 1, 3)"), B=good),
        "of a shape of words": archive(A=shaped("('a', 2)"), B=good),
        "of a header that calls": archive(A=shaped("__import__('os').mkdir('ran')"), B=good),
        "of a header nested deep": archive(A=header("(" * 9000), B=good),
        "of an array of records": archive(A=shaped("(3,)", "[('a', '|O')]"), B=good),
        "of 256 MiB more than it says": archive(packed, A=zeros, B=zeros[:1000]),
        "cut in half": whole[: len(whole) // 2],
        "with a bit flipped in its list": whole[:-60] + bytes([whole[-60] ^ 1]) + whole[-59:],
        "that is a bare array": good,
        "that is a pickle": pickle.dumps(Calls(os.mkdir, "ran")),
        "that is empty": b"",
    }
    bomb = archive(packed, A=shaped("(20000, 512, 512, 3)")[:128] + bytes(2**20), B=good)
    return made | {"that promises 15 GB, packed": bomb}


def _npz(data: bytes) -> Make:
    def make(folder: Path) -> None:
        folder.rmdir()
        folder.with_suffix(".npz").write_bytes(data)

    return make
