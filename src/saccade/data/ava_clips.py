"""What a decoding process does for AVA: the clips around keyframes, with their people."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from saccade.data.ava import AvaDataset, action_labels, is_cut, keyframe_clip
from saccade.data.clips import ClipLabels, ClipSettings, TrainClips
from saccade.data.seeds import stream
from saccade.data.types import ClipRequest
from saccade.sampling.views import draw_short_side


class AvaClips(TrainClips):
    """Gives the batch for a list of requests for keyframes; see `TrainClips`."""

    def __init__(self, dataset: AvaDataset, settings: ClipSettings) -> None:
        super().__init__(dataset, settings)
        self._dataset = dataset

    def _clip(self, request: ClipRequest, index: int) -> tuple[Tensor, ClipLabels]:
        rng = stream(request.seed, "clip")
        steps = (request.stride[1] - request.stride[0]) // request.stride_step
        stride = request.stride[0] + request.stride_step * int(rng.integers(0, steps, endpoint=True))
        short_side = draw_short_side(request.short_side, rng, inverse=self.settings.inverse_uniform)
        keyframe = self._dataset.keyframes[index]
        with self._dataset.open(index, short_side=short_side) as video:
            frames = keyframe_clip(
                keyframe,
                len(video),
                video.fps,
                num_frames=request.num_frames,
                stride=stride,
                cut=is_cut(len(video), video.fps),
            )
            clip = video.frames(frames.tolist())
        boxes = np.array(keyframe.boxes, np.float32)
        return clip, ClipLabels(action_labels(keyframe).T, np.ones(len(boxes), np.bool_), boxes)
