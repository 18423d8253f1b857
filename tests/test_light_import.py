"""Models and operators run where there is no video decoder and no command line, as on many GPU hosts."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"av", "tyro", "rich", "matplotlib", "PIL", "jinja2"}:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Missing())
import torch
import saccade
import saccade.layers
import saccade.ops
for name in ("x3d_xs", "rubiksnet_tiny", "vov3d_m"):
    with torch.device("meta"):
        saccade.create_model(name)
"""


def test_models_need_no_video_decoder() -> None:
    answer = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
