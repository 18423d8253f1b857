"""Memory that is kept from step to step."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from saccade.training.processes import keep_freed_memory
print(keep_freed_memory() if {keep} else False)
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for blocks in [[torch.ones(n << 18) for n in (40, 64, 48)] for _ in range(2)]:  # MiB
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([step() for _ in range(5)][-1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_a_second_block_needs_no_new_pages() -> None:
    def run(keep: bool, environment: dict[str, str] | None = None) -> tuple[str, int]:
        command = [sys.executable, "-c", FAULTS.format(keep=keep)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        told, faults = answer.stdout.split()
        return told, int(faults)

    assert run(keep=False)[1] > 64  # 77,824 pages of 4 KiB, or 152 huge ones
    told, faults = run(keep=True)
    assert told == "True"
    assert faults <= 64


def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.training.processes import keep_freed_memory

    monkeypatch.setenv("MALLOC_MMAP_MAX_", "100")
    assert keep_freed_memory.__wrapped__() is False
