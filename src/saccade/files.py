"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it replaces ``path``, on an error it is removed.

    The temporary name keeps the suffix, because writers choose formats by it.

    Raises:
        OSError: the folder cannot be made, or the file not written, whatever error the library that wrote it
            gave; it names ``path`` or the folder, not the temporary file.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target.parent)) from None
    except OSError as error:
        error.filename = str(target)
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except Exception as error:
        failed = _as_os_error(error, target)
        if failed is None:
            raise
        if failed.filename in (None, name):  # a full disk names nothing
            failed.filename, failed.filename2 = str(target), None
        if failed is error:
            raise
        raise failed from error
    finally:
        with suppress(OSError):  # the folder may be gone; the error that ends the writing matters
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 through `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add a line of UTF-8 to a file; an error names the file, also that of a full disk."""
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{line}\n")
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write indented JSON through `atomic_path`."""
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, *, indent: int | None = None, encoding: str = "utf-8") -> str:
    """``value`` as JSON that can be written in ``encoding``: readable where it can be, else escaped. A path
    whose bytes are no text (Python keeps them as surrogates) is escaped too.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_os_error(error: Exception, target: Path) -> OSError | None:
    """The error of the operating system behind one of a library that writes files; None if there is none.

    safetensors puts its number into a message; PyTorch's writer raises a RuntimeError while the error of the
    file is being handled; PyAV's cannot be given another name; NumPy and Pillow raise one without a number.
    """
    found: BaseException | None = error
    while isinstance(found, RuntimeError):
        found = found.__cause__ or found.__context__
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else getattr(found, "errno", None)
    if isinstance(found, OSError) and code is not None and type(found).__module__ == "builtins":
        return found
    if code is not None and (number or isinstance(found, OSError)):
        return OSError(code, os.strerror(code))
    if not isinstance(found, OSError):
        return None
    with suppress(OSError):
        if shutil.disk_usage(target.parent).free < 1 << 20:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return OSError(errno.EIO, f"could not be written ({found})")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
