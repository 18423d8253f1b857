"""Where the bytes of a video come from: a file, memory, a file object, or a URL read through fsspec."""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, TypeAlias
from urllib.parse import unquote

import numpy as np
import torch
from PIL import Image

from saccade.errors import UsageError, VideoError
from saccade.video.folders import is_video_name

VideoInput: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | np.ndarray
    | torch.Tensor
    | Sequence[Any]
)
"""What `saccade.open_video` and the predictors take."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:::|://)")  # one letter is a drive
_URL_LOST_A_SLASH = re.compile(r"(s3|s3a|gs|gcs|az|abfs|https?|ftp|hdfs|memory):/[^/]")
_LIVE = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt", "mms", "rist")
_IN_MEMORY = 32 << 20  # bytes of a temporary copy that stay in memory; more go to a temporary file
_PACKAGES = {"s3": "'saccade[s3]'", "s3a": "'saccade[s3]'", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs"}
TAKEN = (
    "a path, a URL, bytes, a binary file object, an array of frames uint8 (T, H, W, 3) or a list of frames"
)


@dataclass(frozen=True, eq=False)
class Source:
    """A video file, opened as often as a reader needs.

    Attributes:
        name: what messages and results call it.
        file: a path, or a seekable binary file object, which is read from its start and not closed.
    """

    name: str
    file: str | IO[bytes]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def open(self) -> str | IO[bytes]:
        """What PyAV and torchcodec open: a path, or a file object with a position of its own."""
        if isinstance(self.file, str):
            return os.path.abspath(self.file)
        return _FileView(self.file, self._lock, self.name)  # type: ignore[return-value]

    def key(self) -> tuple[Any, ...] | None:
        """Path, inode, size and time of change, by which indexes are cached; None: not a file on disk."""
        if not isinstance(self.file, str):
            return None
        status = os.stat(self.file)
        path = os.path.abspath(self.file)
        return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class _FileView(io.RawIOBase):
    """Reads a file object from a position of its own, so that several readers can share the object."""

    def __init__(self, file: IO[bytes], lock: threading.Lock, name: str) -> None:
        self._file, self._lock, self._position = file, lock, 0
        self.name = os.path.basename(name)  # FFmpeg looks at its ending

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            with self._lock:
                self._file.seek(self._position)
                data = self._file.read(len(buffer)) or b""
        except Exception as error:  # whatever a foreign file object raises
            raise OSError(f"the file object cannot be read ({error})") from error
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            with self._lock:
                self._file.seek(0, os.SEEK_END)
                offset += self._file.tell()
        self._position = max(offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position


def is_url(text: str) -> bool:
    """Whether ``text`` has the form of a URL, such as ``s3://bucket/clip.mp4``."""
    return _URL.match(text) is not None


def is_frames(source: Any) -> bool:
    """Whether ``source`` holds decoded frames: an array, a list of frames, or such with its rate."""
    if isinstance(source, np.ndarray | torch.Tensor):
        return True
    return isinstance(source, list | tuple) and not any(
        isinstance(each, str | os.PathLike) for each in source
    )


def source_name(source: Any) -> str:
    """What messages and results call a video: its path or URL, the name of a file object, else its type."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return "<bytes>"
    if is_frames(source):
        return "<frames>"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else f"<{type(source).__name__}>"


def find_source(source: Any, name: str | None = None) -> Source:
    """The file or folder that a path, URL, buffer or file object stands for.

    What a URL names, and a file object that cannot seek, is first copied to a temporary file: indexing reads
    all of it anyway.

    Raises:
        VideoError: nothing there, or it cannot be read.
        UsageError: of a type that is not taken, or a URL whose package is not installed.
    """
    name = name or source_name(source)
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if path.lower().startswith("file://"):
            path = path[len("file://") :].removeprefix("localhost")
            path = path if os.path.exists(path) else unquote(path)
        return _download(path, name) if is_url(path) else Source(name, _checked(path, name))
    if isinstance(source, bytes | bytearray | memoryview):
        return _checked_size(Source(name, io.BytesIO(source)))
    if isinstance(source, io.TextIOBase):
        raise UsageError(f"{name}: is a file object of text; open the file with mode 'rb'")
    if callable(getattr(source, "read", None)):
        return _from_file_object(source, name)
    raise UsageError(_not_taken(source))


def _checked(path: str, name: str) -> str:
    """The path of a folder, or of a file that is not empty and may be read."""
    try:
        size = os.stat(path).st_size
    except FileNotFoundError as error:
        cause = "no such file or folder"
        if path.isdecimal():
            cause += "; cameras are not read, record a file"
        elif _URL_LOST_A_SLASH.match(path):
            cause += "; give a URL as a string, pathlib.Path removes one of its slashes"
        raise VideoError(name, cause) from error
    except (OSError, ValueError) as error:
        raise VideoError(name, f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if os.path.isdir(path):
        return path
    if not os.path.isfile(path):
        raise VideoError(name, "is neither a file nor a folder; cameras and pipes are not read")
    if not size:
        raise VideoError(name, "is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise VideoError(name, "cannot be opened: permission denied")
    return path


def _checked_size(source: Source) -> Source:
    if not source.open().seek(0, os.SEEK_END):  # type: ignore[union-attr]
        raise VideoError(source.name, "is empty (0 bytes)")
    return source


def _from_file_object(file: Any, name: str) -> Source:
    try:
        nothing = file.read(0)
        if isinstance(nothing, str):
            raise UsageError(f"{name}: is a file object of text; open the file with mode 'rb'")
        if not isinstance(nothing, bytes):
            raise UsageError(_not_taken(file))
        if callable(getattr(file, "seek", None)) and getattr(file, "seekable", lambda: True)():
            return _checked_size(Source(name, file))
        return _checked_size(_copy(file, name))
    except TypeError as error:  # another kind of read()
        raise UsageError(_not_taken(file)) from error
    except (OSError, ValueError) as error:  # ValueError: closed
        raise VideoError(name, f"the file object cannot be read: {error}") from error


def _copy(file: Any, name: str) -> Source:
    """A copy of the rest of ``file``, which is deleted with the `Source`."""
    copy = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
    source = Source(name, copy)
    weakref.finalize(source, copy.close)
    shutil.copyfileobj(file, copy, 1 << 20)
    return source


def videos_at(url: str) -> list[str]:
    """The URLs of the videos in the folder, at any depth, or of the glob that ``url`` names, sorted; of one
    file ``url`` itself, which need not exist.

    Raises:
        VideoError: there are none, or they cannot be listed.
        UsageError: a package is not installed.
    """
    path = url.split("://", 1)[-1]
    is_glob = any(sign in path for sign in "*?[")
    kept = ("http", "file:", *_LIVE)  # nothing can be listed there
    if url.lower().startswith(kept) or "::" in url or (is_video_name(path) and not is_glob):
        return [url]
    with _remote(url, url) as (filesystem, place):
        if is_glob:
            found = filesystem.glob(place)
        elif path.endswith("/") or filesystem.isdir(place):
            found = filesystem.find(place)
        else:
            return [url]
        videos = [name for name in found if is_video_name(name.rpartition("/")[2]) and "/." not in name]
        if not videos:
            raise VideoError(url, "no video matches" if is_glob else "contains no videos")
        return sorted(filesystem.unstrip_protocol(name) for name in videos)


def _download(url: str, name: str) -> Source:
    with _remote(url, name) as (filesystem, path):
        if not url.lower().startswith("http") and filesystem.isdir(path):
            raise VideoError(name, "is a folder; give the URL of one file")
        with filesystem.open(path, "rb") as file:
            return _checked_size(_copy(file, name))


@contextmanager
def _remote(url: str, name: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL and the path in it; errors in the context become those of `find_source`."""
    scheme = re.split(":+", url)[0].lower()
    if scheme in _LIVE:
        raise VideoError(name, "is a live stream, which is not read; record it to a file first")
    install = f"pip install {_PACKAGES.get(scheme, _PACKAGES['s3'])}"
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(
            f"{name}: URLs are read through fsspec, which is not installed: {install}"
        ) from error
    try:
        yield fsspec.core.url_to_fs(url)
    except VideoError:
        raise
    except ImportError as error:
        raise UsageError(f"{name}: a package that reads {scheme} URLs is missing: {install}") from error
    except FileNotFoundError as error:
        raise VideoError(name, "no such file") from error
    except Exception as error:  # each file system has errors of its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise VideoError(name, f"cannot be read: {reason}") from error


def _not_taken(source: Any) -> str:
    if isinstance(source, int) and not isinstance(source, bool):
        return f"source {source}: cameras are not read; record a file and give its path"
    if isinstance(source, Image.Image):
        return "source: is one image; give a list of frames"
    if isinstance(source, list | tuple):
        return "source: is a list of paths; give one video (several: see predict_many of the predictors)"
    return f"source: is of type {type(source).__name__}; give {TAKEN}"
