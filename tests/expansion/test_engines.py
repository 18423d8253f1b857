from __future__ import annotations

import json
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.errors import UsageError
from saccade.expansion import engines
from saccade.expansion.candidate import Candidate, Job, Trial
from saccade.expansion.config import Complexity, Factors
from saccade.expansion.engines import ProcessEngine, RayEngine, Slot, create_engine, make_slots
from saccade.expansion.worker import main, run_job
from saccade.models import load_model
from saccade.recipes import get_recipe
from saccade.training import TrainConfig
from saccade.training.checkpoint import load_checkpoint
from saccade.training.validation import validate_model
from saccade.video import write_video

TINY = {"gamma_w": 0.3, "head_width": 32}
# Replaces the training process; the recipe's name selects what it does.
SCRIPT = """
import json, os, signal, sys, time
request = json.load(open(sys.argv[1]))
what, job = request["job"]["config"]["recipe"], request["job"]
if what == "dies":
    print("first line"); print("no space left"); sys.exit(3)
if what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "hangs":
    def stop(*_):
        open(job["config"]["out"] + ".saved", "w").write("saved"); sys.exit(130)
    signal.signal(signal.SIGTERM, stop)
    open(job["config"]["out"] + ".begun", "w").write("begun")
    time.sleep(60)
seen = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
seen |= {"cores": request["cores"], "threads": job["config"]["threads"], "device": job["config"]["device"]}
outcome = {"status": "done", "candidate": job["candidate"], "seed": job["seed"], "run_dir": json.dumps(seen)}
json.dump(outcome, open(sys.argv[2], "w"))
"""


def job(config: TrainConfig | None = None, *, seed: int = 0, **changes: Any) -> Job:
    config = config or get_recipe("x3d_motion")
    complexity = Complexity(gmacs=0.1, params=10, memory_mb=1.0)
    candidate = Candidate(step=1, axis="depth", factors=Factors(), complexity=complexity)
    return Job(candidate=candidate, seed=seed, config=config, **changes)


def named(what: str, tmp_path: Path, seed: int = 0) -> Job:
    return job(get_recipe("x3d_motion").replace(recipe=what, out=str(tmp_path / what)), seed=seed)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "WORKER", (sys.executable, "-S", "-c", SCRIPT))


# ------------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize(
    ("num", "cores", "expected"),
    [
        (2, [0, 1, 2, 3], [(0, 1), (2, 3)]),
        (3, [0, 1, 2, 3, 8, 9, 10], [(0, 1), (2, 3, 8), (9, 10)]),
        (2, [5], [(5,), (5,)]),
        (1, [3, 4], [(3, 4)]),
    ],
)
def test_cores_are_divided_among_slots(num: int, cores: list[int], expected: list[tuple[int, ...]]) -> None:
    assert [slot.cores for slot in make_slots(num, cores)] == expected


def test_gpus_are_assigned_in_turns() -> None:
    slots = make_slots(3, list(range(12)), ["4", "7"])
    assert [slot.gpu for slot in slots] == ["4", "7", "4"]
    assert slots[0].environment == {
        "OMP_NUM_THREADS": "4",
        "MKL_NUM_THREADS": "4",
        "CUDA_VISIBLE_DEVICES": "4",
    }
    assert "CUDA_VISIBLE_DEVICES" not in make_slots(1, [0])[0].environment


@pytest.mark.usefixtures("scripted")
def test_each_process_gets_the_cores_of_its_slot(tmp_path: Path) -> None:
    engine = ProcessEngine([Slot((0,)), Slot((1, 2), gpu="3")])
    outcomes = list(engine.run([named("echo", tmp_path, seed) for seed in range(4)]))
    assert sorted(outcome.seed for outcome in outcomes) == [0, 1, 2, 3]
    seen = [json.loads(outcome.run_dir) for outcome in outcomes]
    for one in seen:
        on_gpu = one["cores"] == [1, 2]
        assert one["threads"] == len(one["cores"]) == int(one["OMP_NUM_THREADS"])
        assert one["device"] == ("cuda" if on_gpu else "cpu")
        assert (one["CUDA_VISIBLE_DEVICES"] == "3") == on_gpu
    assert {tuple(one["cores"]) for one in seen} == {(0,), (1, 2)}


@pytest.mark.usefixtures("scripted")
def test_a_dead_process_is_a_failed_trial_and_the_others_continue(tmp_path: Path) -> None:
    engine = ProcessEngine([Slot((0,))])
    jobs = [named(what, tmp_path, seed) for seed, what in enumerate(("dies", "killed", "echo"))]
    outcomes = {outcome.seed: outcome for outcome in engine.run(jobs)}
    assert [outcomes[seed].status for seed in range(3)] == ["failed", "failed", "done"]
    assert outcomes[0].error.endswith("no result; last line of output: no space left")
    assert "SIGKILL (maybe out of memory)" in outcomes[1].error
    assert outcomes[0].run_dir.endswith("dies")


@pytest.mark.usefixtures("scripted")
def test_close_lets_running_jobs_save_and_starts_no_others(tmp_path: Path) -> None:
    engine = ProcessEngine([Slot((0,)), Slot((0,))])
    jobs = [named("echo", tmp_path), named("hangs", tmp_path, 1), named("hangs", tmp_path, 2)]
    run: Iterator[Trial] = engine.run(jobs)
    assert next(run).status == "done"
    wait_for(lambda: (tmp_path / "hangs.begun").is_file())
    start = time.monotonic()
    run.close()
    assert time.monotonic() - start < 20
    assert (tmp_path / "hangs.saved").read_text() == "saved"
    assert list(engine.run([])) == []
    assert [outcome.status for outcome in engine.run([named("echo", tmp_path)])] == ["done"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_that_cannot_start_is_a_failed_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "WORKER", ("/no/such/python",))
    (outcome,) = ProcessEngine([Slot((0,))]).run([job()])
    assert outcome.status == "failed"
    assert "could not be started" in outcome.error


def test_create_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "available_cores", lambda: [0, 1, 2, 3])
    engine = create_engine("process", device="cpu")
    assert isinstance(engine, ProcessEngine)
    assert [slot.cores for slot in engine.slots] == [(0, 1), (2, 3)]
    assert len(create_engine("process", jobs=4, device="cpu").slots) == 4
    with pytest.raises(UsageError, match="'slurm' is unknown; choose process or ray"):
        create_engine("slurm")
    with pytest.raises(UsageError, match="jobs must be at least 1"):
        create_engine("process", jobs=-1)
    with pytest.raises(UsageError, match="limit the GPUs with CUDA_VISIBLE_DEVICES"):
        create_engine("process", device="cuda:1")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert [slot.gpu for slot in create_engine("process").slots] == ["5", "6"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [slot.gpu for slot in create_engine("process").slots] == ["0", "1"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="cuda is not available"):
        create_engine("process", device="cuda")


# ------------------------------------------------------------------------------------------------------- Ray


class FakeRay(types.ModuleType):
    """The part of Ray's API that the engine uses, run synchronously in this process."""

    def __init__(self, gpus: float = 0) -> None:
        super().__init__("ray")
        self.resources = {"CPU": 6.0, "GPU": gpus}
        self.options: dict[str, Any] = {}
        self.results: dict[int, Any] = {}
        self.cancelled: list[int] = []
        self.up = False

    def is_initialized(self) -> bool:
        return self.up

    def init(self, address: str | None, **options: Any) -> None:
        if address == "ray://nowhere":
            raise ConnectionError("no such host")
        self.up = True

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def shutdown(self) -> None:
        self.up = False

    def remote(self, **options: Any) -> Callable[..., Any]:
        self.options = options

        def decorate(function: Callable[..., Any]) -> Any:
            def call(*args: Any) -> int:
                number = len(self.results)
                self.results[number] = (function, args)
                return number

            return types.SimpleNamespace(remote=call)

        return decorate

    def wait(self, references: list[int], *, num_returns: int, timeout: float = 0) -> tuple[list[int], Any]:
        return references[-num_returns:], []

    def get(self, reference: int) -> Any:
        function, args = self.results[reference]
        return function(*args)

    def cancel(self, reference: int) -> None:
        self.cancelled.append(reference)


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


def done(job: Job, run_dir: Path) -> Trial:
    return Trial(candidate=job.candidate, seed=job.seed, status="done", accuracy=0.25, run_dir=str(run_dir))


def test_ray_tasks_get_their_resources_and_return_trials(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained: list[Job] = []

    def fake_run(job: Job) -> Trial:
        trained.append(job)
        if job.seed == 1:
            raise OSError("machine lost")
        return done(job, tmp_path if job.seed == 0 else tmp_path / "elsewhere")

    monkeypatch.setattr("saccade.expansion.engines.run_job", fake_run)
    engine = create_engine("ray", jobs=3)
    assert isinstance(engine, RayEngine)
    assert fake_ray.options == {"num_cpus": 2, "num_gpus": 0.0, "max_retries": 0}
    outcomes = {outcome.seed: outcome for outcome in engine.run([job(seed=seed) for seed in range(3)])}
    assert all(one.config.threads == 2 and one.config.device == "cpu" for one in trained)
    assert outcomes[0] == done(job(), tmp_path)
    assert outcomes[1].status == "failed"
    assert outcomes[1].error == "OSError: machine lost"
    assert "put --out on shared storage" in outcomes[2].error
    engine.close()
    assert not fake_ray.up


def test_running_ray_jobs_are_cancelled_when_the_search_stops(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("saccade.expansion.engines.run_job", lambda job: done(job, tmp_path))
    fake_ray.up = True
    engine = RayEngine()
    run = engine.run([job(seed=seed) for seed in range(3)])
    assert next(run).seed == 2
    run.close()
    assert fake_ray.cancelled == [0, 1]
    engine.close()
    assert fake_ray.up, "the caller's connection stays open"


def test_ray_divides_gpus(fake_ray: FakeRay) -> None:
    fake_ray.resources = {"CPU": 16.0, "GPU": 4.0}
    assert RayEngine().gpus == 1.0
    assert RayEngine(jobs=8).gpus == 0.5
    assert RayEngine(device="cpu").gpus == 0.0
    fake_ray.resources = {"CPU": 16.0}
    with pytest.raises(UsageError, match="the Ray cluster has no GPU"):
        RayEngine(device="cuda")


def test_ray_errors_are_one_line(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"Ray cannot be reached \(ConnectionError: no such host\)"):
        create_engine("ray", address="ray://nowhere")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs the extra `ray`: pip install 'saccade\[ray\]'"):
        create_engine("ray")


# ---------------------------------------------------------------------------------------------- real training


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four grey clips of two classes, to train and to validate on."""
    root = tmp_path_factory.mktemp("clips")
    for split in ("train", "val"):
        for label in range(2):
            for number in range(2):
                path = root / split / f"class{label}" / f"{number}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                frames = torch.full((4, 32, 32, 3), 60 + 120 * label, dtype=torch.uint8)
                write_video(path, frames, fps=30, options={"preset": "ultrafast"})
    return root


def tiny_job(data: Path, out: Path, **changes: Any) -> Job:
    recipe = get_recipe("x3d_motion")
    config = recipe.replace(
        data=str(data),
        out=str(out),
        model=replace(recipe.model, name="x2d", overrides=TINY),
        clip=replace(recipe.clip, num_frames=2, stride=1, crop=32, short_side=32),
        augment=replace(recipe.augment, short_side=(32, 32)),
        optim=replace(recipe.optim, lr=0.01, warmup_epochs=0.0),
        epochs=4,
        batch_size=2,
        workers=0,
        val_every=4,
        test_views="",
        threads=1,
        device="cpu",
    )
    return job(config, **changes)


class PerfectScore:
    """A validation with a score of 1."""

    score = 1.0

    def __init__(self, *args: Any, **options: Any) -> None:
        self.result = validate_model(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.result, name)


def weights_step(job: Job) -> int:
    """The training step of a run's best weights."""
    _, metadata = load_model(Path(job.config.out) / "best.safetensors")
    return metadata["metrics"]["step"]


def test_a_second_rung_resumes_the_training_of_the_first(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saccade.training.run._report", lambda trainer: None)  # takes longer than the run
    whole = tiny_job(clips, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("saccade.training.loop.validate_model", PerfectScore)
        first = run_job(replace(whole, fraction=0.5))
    assert first.status == "done", first.error
    assert first.epochs == 2
    assert weights_step(whole) == 4
    second = run_job(replace(whole, rung=1))
    assert second.status == "done", second.error
    assert (second.num_val, second.epochs, second.rung) == (4, 4, 1)
    assert second.accuracy in (0.0, 0.25, 0.5, 0.75, 1.0)
    assert load_checkpoint(tmp_path / "whole" / "last.pt")["progress"]["step"] == 8
    assert weights_step(whole) == 8, "the score at the end of the first rung does not count"

    warm = run_job(tiny_job(clips, tmp_path / "warm", parent_run=second.run_dir, fraction=0.25))
    assert warm.status == "done", warm.error
    report = json.loads((tmp_path / "warm" / "warm_start.json").read_text())
    assert report["exact"] is True
    (tmp_path / "warm").rename(tmp_path / "moved")
    later = tiny_job(clips, tmp_path / "moved", parent_run=str(tmp_path / "gone"), rung=1, fraction=0.5)
    moved = run_job(replace(later, config=later.config.replace(cache_mb=1, workers=1)))
    assert moved.status == "done", moved.error


def test_what_goes_wrong_is_an_outcome(tmp_path: Path) -> None:
    outcome = run_job(tiny_job(tmp_path / "nothing", tmp_path / "run"))
    assert outcome.status == "failed"
    assert "nothing" in outcome.error
    assert outcome.accuracy is None


def test_the_process_of_a_job(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its part besides the training, here without a second process."""
    pinned: list[list[int]] = []
    monkeypatch.setattr("os.sched_setaffinity", lambda pid, cores: pinned.append(cores), raising=False)
    monkeypatch.setattr("saccade.expansion.worker._stop_at_stdin_eof", lambda: None)
    monkeypatch.setattr("saccade.expansion.worker.run_job", lambda job: done(job, tmp_path))
    order = {"job": tiny_job(clips, tmp_path / "run").to_dict(), "cores": [1]}
    (tmp_path / "job.json").write_text(json.dumps(order))
    args = [str(tmp_path / "job.json"), str(tmp_path / "outcome.json")]
    assert main(args) == 0
    assert pinned == [[1]]
    written = Trial.from_dict(json.loads((tmp_path / "outcome.json").read_text()))
    assert written == done(tiny_job(clips, tmp_path / "run"), tmp_path)

    def interrupted(job: Job) -> Trial:
        raise KeyboardInterrupt

    monkeypatch.setattr("saccade.expansion.worker.run_job", interrupted)
    assert main(args) == 130


@pytest.mark.slow
def test_real_processes_train_and_stop_cleanly(clips: Path, tmp_path: Path) -> None:
    engine = create_engine("process", jobs=2, device="cpu")
    short, long = tiny_job(clips, tmp_path / "short"), tiny_job(clips, tmp_path / "long", seed=1)
    long = replace(long, config=long.config.replace(epochs=100_000))
    run = engine.run([long, short])
    outcome = next(run)
    assert (outcome.seed, outcome.status) == (0, "done"), outcome.error
    wait_for((tmp_path / "long" / "last.pt").is_file)
    run.close()
    state = load_checkpoint(tmp_path / "long" / "last.pt")
    assert state["progress"]["step"] > 0, "SIGTERM made it save a checkpoint"


@pytest.mark.slow
def test_jobs_end_with_the_process_of_the_engine(clips: Path, tmp_path: Path) -> None:
    import subprocess

    long = tiny_job(clips, tmp_path / "long")
    long = replace(long, config=long.config.replace(epochs=100_000))
    job_path, trial_path = tmp_path / "job.json", tmp_path / "outcome.json"
    job_path.write_text(json.dumps({"job": long.to_dict(), "cores": []}))
    process = subprocess.Popen(
        [sys.executable, "-m", "saccade.expansion.worker", str(job_path), str(trial_path)],
        stdin=subprocess.PIPE,
    )
    wait_for((tmp_path / "long" / "last.pt").is_file)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) in (130, -signal.SIGTERM)
    assert not trial_path.exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_real_ray(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    engine = create_engine("ray", jobs=2, device="cpu")
    try:
        jobs = [tiny_job(clips, tmp_path / f"run{seed}", seed=seed) for seed in range(2)]
        jobs.append(tiny_job(tmp_path / "nothing", tmp_path / "bad", seed=2))
        outcomes = {outcome.seed: outcome for outcome in engine.run(jobs)}
    finally:
        engine.close()
    assert [outcomes[seed].status for seed in range(3)] == ["done", "done", "failed"]
    assert (tmp_path / "run1" / "best.safetensors").is_file()
