"""Folders of frames in every kind of PNG and JPEG: 16 bit, palette, gray, CMYK, turned by EXIF."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from painted_files import painted
from PIL import Image

from saccade.errors import VideoError
from saccade.video import open_video

RAMP = np.arange(64 * 96).reshape(64, 96) * 10  # 16 bit, up to 61430


def first_frame(folder: Path, **options: object) -> np.ndarray:
    with open_video(folder, **options) as reader:  # type: ignore[arg-type]
        frame = reader.frames([0])[0].numpy()
        assert frame.shape[:2] == reader.size
        return frame


def png_of_16_bit(path: Path, pixels: np.ndarray) -> None:
    """A PNG of uint16 (H, W, C): Pillow writes gray only. C is 1 (gray), 2 (gray, alpha), 3 or 4."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit(channels: int, tmp_path: Path) -> None:
    """The upper 8 bits, which are within 1 of value / 257."""
    pixels = np.stack([np.roll(RAMP, 7 * channel, 1) for channel in range(channels)], 2)
    png_of_16_bit(tmp_path / "0.png", pixels)
    expected = pixels[:, :, :3] if channels >= 3 else pixels[:, :, :1].repeat(3, 2)
    frame = first_frame(tmp_path)
    assert np.array_equal(frame, expected >> 8)
    assert np.abs(frame - expected / 257).max() <= 1


def test_8_bit_values_in_16_bit_come_back(tmp_path: Path) -> None:
    png_of_16_bit(tmp_path / "0.png", painted(5).astype(np.uint16) * 257)
    assert np.array_equal(first_frame(tmp_path), painted(5))


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(painted(3)).quantize(32)
    expected = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "0.png")
    assert np.array_equal(first_frame(tmp_path), expected)
    image.save(tmp_path / "0.png", transparency=bytes(range(0, 256, 8)))
    assert np.array_equal(first_frame(tmp_path), expected)
    image.save(tmp_path / "0.png", transparency=3)
    assert np.array_equal(first_frame(tmp_path), expected)


def test_gray_alpha_and_one_bit(tmp_path: Path) -> None:
    gray = painted(3)[:, :, 0]
    alpha = np.full_like(gray, 7)
    as_rgb = gray[:, :, None].repeat(3, 2)
    Image.fromarray(gray).save(tmp_path / "0.png")
    assert np.array_equal(first_frame(tmp_path), as_rgb)
    Image.fromarray(np.stack([gray, alpha], 2), "LA").save(tmp_path / "0.png")
    assert np.array_equal(first_frame(tmp_path), as_rgb)
    Image.fromarray(np.dstack([painted(3), alpha])).save(tmp_path / "0.png")
    assert np.array_equal(first_frame(tmp_path), painted(3))
    Image.fromarray(gray > 100).save(tmp_path / "0.png")
    assert np.array_equal(first_frame(tmp_path), np.where(as_rgb > 100, 255, 0))


def test_cmyk_jpeg(tmp_path: Path) -> None:
    flat = np.full((64, 96, 3), (200, 40, 90), np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "0.jpg", quality=95)
    assert np.abs(first_frame(tmp_path).astype(int) - flat).max() <= 4


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, ending: str, tmp_path: Path) -> None:
    """Row 0 and column 0 of the stored image are what TIFF 6.0, tag 274, says."""
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:16] = 100
    upright[:, :24] = 200
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"0.{ending}"
    Image.fromarray(np.ascontiguousarray(stored)).save(
        path, exif=exif, **({"quality": 95} if ending == "jpg" else {})
    )
    frame = first_frame(tmp_path)
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright)[4::8, 4::8].max() <= 6
    assert first_frame(tmp_path, short_side=32).shape == (32, 48, 3)


def test_sizes_are_compared_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(painted(0)).save(tmp_path / "0.png")
    Image.fromarray(np.ascontiguousarray(np.rot90(painted(1)))).save(tmp_path / "1.png", exif=exif)
    Image.fromarray(painted(2)).save(tmp_path / "2.png", exif=exif)
    with open_video(tmp_path) as reader:
        assert np.array_equal(reader.frames([1])[0].numpy(), painted(1))
        with pytest.raises(VideoError, match=r"frame 2 \(2.png\) is \(96, 64\), the first frame \(64, 96\)"):
            reader.frames([2])


def test_a_damaged_first_image_does_not_hide_the_others(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(painted(i)).save(tmp_path / f"{i}.png")
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:150])
    with open_video(tmp_path) as reader:
        frames, undecodable = reader.try_frames([0, 1, 2])
    assert undecodable.keys() == {0}
    assert np.array_equal(frames[1:].numpy(), np.stack([painted(1), painted(2)]))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_is_no_reason_to_refuse(tmp_path: Path) -> None:
    Image.fromarray(painted(0)).save(tmp_path / "0.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95)
    assert first_frame(tmp_path).shape == (64, 96, 3)


def test_images_in_memory_are_read_alike() -> None:
    gray = Image.fromarray(RAMP.astype(np.uint16))
    exif = gray.getexif()
    exif[274] = 6
    with open_video([gray, gray]) as reader:
        assert np.array_equal(reader[1].numpy(), np.rot90(RAMP >> 8, -1)[:, :, None].repeat(3, 2))
