"""Two gloo processes must do what one plain batch norm does on the joined batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from saccade.layers import SyncBatchNorm3d, convert_sync_batchnorm

SPLIT = (3, 1)  # clips per process: uneven on purpose


def _norm(dtype: torch.dtype, **options: object) -> nn.BatchNorm3d:
    norm = nn.BatchNorm3d(5, **options).to(dtype)  # type: ignore[arg-type]
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, 5))
        norm.bias.copy_(torch.linspace(-1, 1, 5))
    return norm


def _inputs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = 3 + torch.randn(sum(SPLIT), 5, 2, 3, 4, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randn(x.shape, generator=generator, dtype=torch.float64).to(dtype)


def _work(rank: int, folder: str, dtype: torch.dtype, momentum: float | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=len(SPLIT)
    )
    norm = convert_sync_batchnorm(nn.Sequential(_norm(dtype, momentum=momentum)))
    x, r = _inputs(dtype)
    x, r = x.split(SPLIT)[rank].clone().requires_grad_(), r.split(SPLIT)[rank]
    for _ in range(2):  # twice, so that a cumulative average has something to average
        y = norm(x)
    (y * r).sum().backward()
    torch.save(
        {
            "y": y.detach(),
            "gx": x.grad,
            "gw": norm[0].weight.grad,
            "gb": norm[0].bias.grad,
            **norm[0].state_dict(),
        },
        f"{folder}/{rank}.pt",
    )
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("dtype", "momentum", "tolerance"),
    [
        (torch.float64, 0.1, 1e-12),
        pytest.param(torch.float64, None, 1e-12, marks=pytest.mark.slow),
        pytest.param(torch.float32, 0.1, 2e-5, marks=pytest.mark.slow),
    ],
)
def test_equal_to_plain_batch_norm_on_the_joined_batch(
    tmp_path: Path, dtype: torch.dtype, momentum: float | None, tolerance: float
) -> None:
    mp.spawn(_work, args=(str(tmp_path), dtype, momentum), nprocs=len(SPLIT))
    got = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(SPLIT))]
    norm = _norm(dtype, momentum=momentum)
    x, r = _inputs(dtype)
    x.requires_grad_()
    for _ in range(2):
        y = norm(x)
    (y * r).sum().backward()

    def close(actual: torch.Tensor, expected: torch.Tensor | None) -> None:
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)

    close(torch.cat([g["y"] for g in got]), y.detach())
    close(torch.cat([g["gx"] for g in got]), x.grad)
    close(got[0]["gw"] + got[1]["gw"], norm.weight.grad)
    close(got[0]["gb"] + got[1]["gb"], norm.bias.grad)
    for key, value in norm.state_dict().items():
        for g in got:
            close(g[key], value)


def test_without_a_process_group_it_is_plain_batch_norm() -> None:
    plain = _norm(torch.float32)
    sync = convert_sync_batchnorm(_norm(torch.float32))
    assert isinstance(sync, SyncBatchNorm3d)
    assert sync.state_dict().keys() == plain.state_dict().keys()
    x, _ = _inputs(torch.float32)
    assert torch.equal(sync(x), plain(x))
    assert torch.equal(sync.running_var, plain.running_var)
    assert torch.equal(sync.eval()(x), plain.eval()(x))


def test_conversion_keeps_the_very_parameters() -> None:
    model = nn.Sequential(nn.Conv3d(3, 5, 1), nn.Sequential(nn.BatchNorm3d(5), nn.ReLU()))
    before = dict(model.named_parameters())
    assert convert_sync_batchnorm(model) is model
    assert isinstance(model[1][0], SyncBatchNorm3d)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
