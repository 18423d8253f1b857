"""The files of painted_files.py, made on first use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from painted_files import RECIPES, MadeFile, painted, sequential

from saccade.video import write_video

_made: dict[str, MadeFile] = {}


@pytest.fixture(scope="session")
def make_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], MadeFile]:
    """The file of a recipe, made on first use."""
    folder = tmp_path_factory.mktemp("videos")

    def make(name: str) -> MadeFile:
        if name not in _made:
            recipe = RECIPES[name]
            path = folder / f"{name}{recipe.suffix}"
            write_video(
                path,
                (painted(i) for i in range(recipe.num_frames)),
                fps=30,
                codec=recipe.codec,
                gop=recipe.gop,
                bframes=recipe.bframes,
                pix_fmt=recipe.pix_fmt,
                pts=recipe.times(recipe.num_frames) if recipe.times else None,
                rotation=recipe.rotation,
                options=recipe.options,
            )
            _made[name] = MadeFile(path, recipe, sequential(path))
        return _made[name]

    return make
