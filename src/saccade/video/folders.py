"""Which names are those of videos and images, and which folders hold the frames of one video.

Names that begin with a dot (``._clip.mp4``, ``.DS_Store``) are skipped everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

# The endings of the containers and raw streams that FFmpeg reads pictures from.
VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mp4v", ".mov", ".qt", ".f4v", ".3gp", ".3gpp", ".3g2", ".mj2", ".ismv"),
        *(".mkv", ".mk3d", ".webm", ".avi", ".divx", ".xvid", ".flv", ".kux", ".wmv", ".asf", ".wtv"),
        *(".mpg", ".mpeg", ".mpe", ".mpv", ".m1v", ".m2v", ".m2p", ".vob", ".vro", ".mod", ".tod"),
        *(".ts", ".mts", ".m2ts", ".m2t", ".trp", ".dvr-ms", ".ty", ".evo"),
        *(".ogv", ".ogg", ".ogm", ".rm", ".rmvb", ".mxf", ".gxf", ".lxf", ".nut", ".nuv", ".amv"),
        *(".dv", ".dif", ".dav", ".ivf", ".ivr", ".y4m", ".gif", ".mjpg", ".mjpeg", ".bik", ".smk"),
        *(".h261", ".h263", ".h264", ".264", ".avc", ".h26l", ".h265", ".265", ".hevc", ".h266", ".266"),
        *(".vvc", ".obu", ".av1", ".vc1", ".rcv", ".cine", ".usm", ".xmv", ".roq", ".flic", ".fli", ".flc"),
    )
)
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))
_PREVIEWS = frozenset(("thumbnails", "thumbnail", "thumbs", "thumb", "previews", "posters", "covers"))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is skipped."""
    return name.startswith(".")


def is_video_name(name: str) -> bool:
    """Whether a file of this name counts as a video, by its ending."""
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image, by its ending."""
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_frame_folder(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder that holds images and, at any depth, no video file."""
    if not os.path.isdir(path):
        return False
    where, folders, files = next(_walk(path))
    return _holds_frames(where, folders, files)


def find_videos(folder: str | os.PathLike[str], *, top: bool = True) -> tuple[list[str], list[str]]:
    """The videos in a folder at any depth, sorted: files and folders of frames; and the files left out.

    Folders of thumbnails are left out: those that are called so, or whose images have the names of the videos
    beside the folder. Links to folders are followed.

    Args:
        top: whether ``folder`` itself may be a folder of frames, the only video then.

    Raises:
        OSError: a folder cannot be listed.
    """
    videos: list[str] = []
    others: list[str] = []
    stems: dict[str, set[str]] = {}  # of the videos directly in each folder
    for where, folders, files in _walk(folder):
        names = {name for name in files if is_video_name(name)}
        stems[where] = {os.path.splitext(name)[0] for name in names}
        may_be = top if where == os.fspath(folder) else not _are_previews(where, files, stems)
        if may_be and not names and _holds_frames(where, folders, files):
            videos.append(where)
            folders.clear()
            continue
        for name in files:
            (videos if name in names else others).append(os.path.join(where, name))
    return sorted(videos), sorted(others)


def _holds_frames(where: str, folders: list[str], files: list[str]) -> bool:
    if not any(map(is_image_name, files)) or any(map(is_video_name, files)):
        return False
    below = (os.path.join(where, name) for name in folders)
    return not any(is_video_name(name) for each in below for _, _, inside in _walk(each) for name in inside)


def _are_previews(where: str, files: list[str], stems: dict[str, set[str]]) -> bool:
    parent, name = os.path.split(where)
    images = {os.path.splitext(file)[0] for file in files if is_image_name(file)}
    return name.lower() in _PREVIEWS or images <= stems.get(parent, set())


def _walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` without hidden names, through links, each folder once; a folder that cannot be listed is an
    error.
    """

    def fail(error: OSError) -> None:
        raise error

    linked: set[str] = set()
    for where, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name) and _is_new(where, name, linked)]
        yield where, folders, [name for name in files if not is_hidden(name)]


def _is_new(where: str, name: str, linked: set[str]) -> bool:
    """Whether a folder is none that a link leads back to."""
    path = os.path.join(where, name)
    if not os.path.islink(path):
        return True
    real = os.path.realpath(path)
    if real in linked or os.path.realpath(where).startswith(real + os.sep) or os.path.realpath(where) == real:
        return False
    linked.add(real)
    return True
