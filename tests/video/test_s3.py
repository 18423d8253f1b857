"""``s3://`` against a server in this process: ``pip install 'saccade[s3]' 'moto[server]'`` (many packages,
which dev spares those who do not read from S3).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from painted_files import MadeFile

from saccade.cli.flags import find_videos
from saccade.errors import VideoError
from saccade.video import open_video

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

MakeFile = Callable[[str], MadeFile]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, make_file: MakeFile) -> Iterator[str]:
    """The address of a server whose bucket ``archive`` holds two videos and a text."""
    started = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    started.start()
    address = "http://{}:{}".format(*started.get_host_and_port())
    variables = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "ENDPOINT_URL": address}
    for name, value in {**variables, "DEFAULT_REGION": "us-east-1", "MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("archive")
    for name in ("clips/a.mp4", "clips/deep/b.mp4"):
        files.pipe(f"archive/{name}", make_file("h264_bframes_mp4").path.read_bytes())
    files.pipe("archive/clips/note.txt", b"text")
    s3fs.S3FileSystem.clear_instance_cache()
    yield address
    s3fs.S3FileSystem.clear_instance_cache()
    _ask(f"{address}/moto-api/reset-auth", b"inf")
    _ask(f"{address}/moto-api/reset")
    started.stop()


def _ask(url: str, data: bytes = b"") -> None:
    with urlopen(Request(url, data, {"Content-Type": "text/plain"}, method="POST")) as answer:
        assert json.load(answer)["status"] == "ok"


def test_objects_folders_and_globs(server: str, make_file: MakeFile) -> None:
    urls = ["s3://archive/clips/a.mp4", "s3://archive/clips/deep/b.mp4"]
    assert find_videos(["s3://archive/clips/"]) == find_videos(["s3://archive/clips"]) == urls
    assert find_videos(["s3://archive/clips/*.mp4", urls[0]]) == urls[:1]
    for url in urls:
        with open_video(url) as reader:
            assert reader.path == url
            truth = np.stack(make_file("h264_bframes_mp4").truth)
            assert np.array_equal(reader.frames(range(60)).numpy(), truth)


def test_what_cannot_be_read_is_one_line(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def cause(url: str) -> str:
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(VideoError) as caught:
            open_video(url)
        assert caught.value.path == url
        assert "\n" not in str(caught.value)
        return caught.value.cause

    assert cause("s3://archive/clips/none.mp4") == "no such file"
    assert cause("s3://archive/clips") == "is a folder; give the URL of one file"
    _ask(f"{server}/moto-api/reset-auth", b"0")  # keys count from now on
    refused = cause("s3://archive/clips/a.mp4")
    assert "denied" in refused.lower() or "forbidden" in refused.lower() or "key" in refused.lower()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "127.0.0.1:9" in cause("s3://archive/clips/a.mp4")


def test_predict_on_a_list_of_urls(server: str, tmp_path: Path) -> None:
    from saccade import Predictor
    from saccade.models import create_model

    predictor = Predictor(create_model("x3d_xs", num_classes=3), ["a", "b", "c"])
    urls = ["s3://archive/clips/a.mp4", "s3://archive/clips/deep/b.mp4"]
    found = list(predictor.predict_many(urls))
    assert [prediction.path for prediction in found] == urls
