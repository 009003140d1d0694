import zlib

from tilemapper.raster.summed import Summed, file_crc32


def test_the_checksum_is_of_all_that_was_written(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        dst = Summed(file)
        for part in (b"one", b"", b"two" * 1000):
            dst.write(part)
    assert dst.crc32 == file_crc32(path) == zlib.crc32(b"one" + b"two" * 1000)
    path.write_bytes(b"on" + path.read_bytes()[2:-1] + b"p")
    assert file_crc32(path) != dst.crc32
