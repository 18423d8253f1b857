"""The training loop, and its state for checkpoints."""

from __future__ import annotations

import errno
import math
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saccade.data.types import ClipBatch, ClipRequest, VideoDataset
from saccade.models import contract, save_weights
from saccade.runs import Run
from saccade.tasks import Objective, figure_name, get_task
from saccade.training.checkpoint import save_checkpoint
from saccade.training.config import TrainConfig
from saccade.training.ema import WeightAverage
from saccade.training.head import fit_head
from saccade.training.loader import make_loader
from saccade.training.multigrid import Phase, base_shape
from saccade.training.norms import BatchNorms
from saccade.training.optim import create_optimizer, set_learning_rate, set_train_mode
from saccade.training.processes import Interrupts, Processes, RunInterrupted
from saccade.training.progress import FailureLimit, Progress, Stopwatch, Window
from saccade.training.reporting import MetricsFile, Reporter, loss_text
from saccade.training.schedule import Timetable
from saccade.training.step import GradientStep, TrainingError, checkpoint_blocks, step_seed
from saccade.training.time_limit import TimeLimit
from saccade.training.validation import validate_model, validation_record, validation_text

if TYPE_CHECKING:
    from saccade.training.shard import Shards


class Trainer:
    """Trains ``model`` on ``train_set`` and writes the run folder.

    The constructor writes nothing, so errors in the config leave the folder unchanged.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        train_set: VideoDataset,
        val_set: VideoDataset | None,
        *,
        processes: Processes,
        run_folder: Run,
        timetable: Timetable,
        reporter: Reporter,
        objective: Objective | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        fraction: float = 1.0,
    ) -> None:
        self.config, self.model, self.run_folder = config, model, run_folder
        self.train_set, self.val_set = train_set, val_set
        self.processes, self.reporter, self.timetable = processes, reporter, timetable
        self.fraction = fraction
        self.progress = Progress()
        self.time_limit = TimeLimit(config.minutes) if config.minutes else None
        self.task = get_task(config.task).from_config(config)
        norm_by_plan = config.multigrid != "off" and config.grid.bn_base_size > 0
        self.norms = BatchNorms(model, processes, sync=config.sync_bn and not norm_by_plan)
        if config.checkpoint_activations:
            checkpoint_blocks(model)
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self._shards = self._shard() if config.shard else None
        self.objective = objective or self.task.objective(config, model, train_set)
        self.optimizer = create_optimizer(
            model,
            config.optim,
            backbone_lr=config.model.backbone_lr,
            layer_decay=config.model.layer_decay,
            others=self.objective.module,
        )
        self.watch = Stopwatch()
        self.interrupts = Interrupts()
        self.metrics = (
            MetricsFile(run_folder.metrics_file, tensorboard=config.tensorboard) if processes.main else None
        )
        self._phase: Phase | None = None
        self._gradients = GradientStep(
            config,
            model,
            processes,
            train_set.class_names,
            shards=self._shards,
            objective=self.objective,
            transform=transform,
        )
        shifts = contract.lr_multipliers(model)
        # the gradients of learned shifts are much larger and would dominate the global norm
        self._clipped = [p for name, p in model.named_parameters() if name not in shifts]
        self._failure_limit = self._new_failure_limit()
        self._last_save = time.monotonic()
        self._most_steps = timetable.total_steps

    # ------------------------------------------------------------------------------------------- state

    @property
    def tested_model(self) -> nn.Module:
        """The model that is validated and saved: the moving average if there is one; with shards, the copy
        last gathered.
        """
        if self._shards:
            return self._shards.full_model
        return self.average.model if self.average else self.model

    @property
    def total_steps(self) -> int:
        """Steps of the complete run; with a time limit, as planned so far."""
        return self.timetable.total_steps

    @property
    def end_step(self) -> int:
        """The step at which the run ends or pauses."""
        return max(1, round(self.fraction * self.total_steps))

    @property
    def epoch(self) -> float:
        """Epochs so far, with fractions."""
        return self.timetable.epoch(self.progress.step)

    def state(self) -> dict[str, Any]:
        """The state to resume from, as tensors and plain values (`torch.load` with ``weights_only=True``)."""
        state = {
            "model": self.model.state_dict(),
            "splits": self.norms.state(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "progress": self.progress.to_dict(),
            "epoch": self.epoch,
            "config": self.config.to_dict(),
            "data": self.train_set.fingerprint(),
            "objective": self.objective.state_dict(),
        }
        return self._shards.gathered(state) if self._shards else state

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a `state` and remove later lines of metrics.jsonl."""
        if self._shards:
            state = self._shards.scattered(state, self.optimizer)
        self.model.load_state_dict(state["model"])
        self.norms.load_state(state["splits"])
        self.objective.load_state_dict(state.get("objective", {}))
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.progress = Progress.from_dict(state["progress"])
        if self.time_limit:
            self.time_limit = TimeLimit(self.config.minutes, seconds_before=self.progress.seconds)
            self.timetable.shorten(self.progress.total_steps or self.total_steps)
        if self.metrics:
            self.metrics.cut(step=self.progress.step, validation_due=self.progress.validation_due)

    def save(self) -> None:
        """Write last.pt, unless the weights are not finite."""
        self._last_save = time.monotonic()
        if not (self.processes.main or self._shards):
            return
        state = self.state()
        weights = [state["model"][name] for name, _ in self.model.named_parameters()]
        if not all(bool(torch.isfinite(value).all()) for value in weights):
            raise self._diverged("the weights are not finite")
        if self.processes.main:
            folder = self.run_folder.folder
            if not folder.is_dir():  # it would be made again, without the other files
                raise FileNotFoundError(
                    errno.ENOENT, "the run folder was removed while training", str(folder)
                )
            save_checkpoint(self.run_folder.last, state)

    # --------------------------------------------------------------------------------------------- run

    def run(self) -> None:
        """Train from the current step to ``end_step``.

        Raises:
            RunInterrupted: stopped by SIGTERM or Ctrl-C, after last.pt was written.
            TrainingError: the loss is not finite, or the device is out of memory.
            DataError: too many unreadable files.
        """
        set_train_mode(self.model)
        self._set_model_progress(self.progress.step)
        pinned = self.processes.device.type == "cuda"
        loading = make_loader(self.config, self.train_set, pin_memory=pinned)
        self.reporter.start(
            self.progress.step, {"run_dir": str(self.run_folder.folder), "config": self.config.to_dict()}
        )
        with loading as loader, self.interrupts:
            batches = loader.batches(self._requests())
            self.watch.reset()
            if self._head_due:
                self._fit_classifier(batches)
            while True:
                if self.progress.validation_due:
                    self._validate(batches)
                if self.progress.step >= self.end_step:
                    break
                self._step(batches)
        if self._shards:
            self._shards.refresh()
        if self.metrics:
            self.metrics.close()

    def _requests(self) -> Iterator[list[ClipRequest]]:
        """The requests of all remaining steps, so that the same workers serve all epochs, and of the batches
        that `precise_bn` needs before each validation.
        """
        step, sampler = self.progress.step, self.timetable.sampler
        if self._head_due:
            yield from sampler.extra_requests(step, self._head_batches, base_shape(self.config))
        if self.progress.validation_due or (self._head_due and self.val_set):
            yield from self._extra_requests(step)
        for request in sampler.run_requests(step, self.end_step):
            yield request
            step += 1
            if self._validates_after(step):
                yield from self._extra_requests(step)

    def _extra_requests(self, step: int) -> Iterator[list[ClipRequest]]:
        """Batches of the base shape for `precise_bn`."""
        shape = base_shape(self.config)
        return self.timetable.sampler.extra_requests(step, self.config.precise_bn, shape)

    @property
    def _head_due(self) -> bool:
        """Whether the classifier is to be fitted before the first step."""
        return bool(self.config.model.head_clips) and not (self.progress.step or self.progress.head_fitted)

    @property
    def _head_batches(self) -> int:
        return math.ceil(self.config.model.head_clips / self.config.batch_size)

    def _fit_classifier(self, batches: Iterator[ClipBatch]) -> None:
        """Fit the classifier before the first step, see `saccade.training.head`."""

        def clips() -> Iterator[tuple[Tensor, Tensor, tuple[int, ...]]]:
            for batch in islice(batches, self._head_batches):
                self._note_failures(batch)
                yield self._gradients.prepare(batch), batch.labels, batch.indices

        with self._interruptible(), self._gradients.autocast():
            self.reporter.say(
                fit_head(self.config, self.model, self.train_set.labelled, clips(), processes=self.processes)
            )
        if self.average:
            self.average = WeightAverage(self.model, self.config.ema)
        self.progress.head_fitted, self.progress.validation_due = True, self.val_set is not None
        self.save()
        set_train_mode(self.model)

    def _step(self, batches: Iterator[ClipBatch]) -> None:
        with self.watch.waiting():
            batch = next(batches)
        progress, config = self.progress, self.config
        torch.manual_seed(step_seed(config.seed, progress.step, self.processes.rank))
        self._enter(self.timetable.phase(progress.step))
        lr = self.timetable.rate(progress.step) * progress.plateau.factor
        set_learning_rate(self.optimizer, lr)
        loss, correct = self._gradients(batch)
        sums = self._summed(batch, loss, correct)
        stop, not_finite, late, failures, loss, correct, clips, planned, *terms = sums
        if not_finite:
            raise self._diverged("the loss is not finite")
        if config.optim.clip_grad:
            nn.utils.clip_grad_norm_(self._clipped, config.optim.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._set_model_progress(progress.step + 1)
        if self.average:
            growth = self.timetable.shape(progress.step).batch_size / config.batch_size
            self.average.update(self.model, num_updates=growth)
        self.watch.clips += int(clips)
        parts = dict(zip(self._gradients.terms, terms, strict=True))
        progress.window.add(loss=loss, correct=correct, clips=int(clips), failures=int(failures), terms=parts)
        progress.epoch_failures += int(failures)
        progress.step += 1
        self._shorten(int(planned))
        self._note_failures(batch)
        self._after_step(lr, late=bool(late))
        if stop:
            self._stop()

    def _summed(self, batch: ClipBatch, loss: float, correct: float) -> list[float]:
        """Sums over the processes: stop requests, losses that are not finite, save requests, unreadable
        files, loss, correct clips, clips, the steps of the run as the first process plans them, and parts of
        the loss.
        """
        self._failure_limit.see(batch.failures)
        late = time.monotonic() - self._last_save >= 60 * self.config.save_minutes
        local = [
            float(self.interrupts.requested),
            float(not math.isfinite(loss)),
            float(late and self.processes.main),
            float(len(batch.failures)),
            loss,
            correct,
            float(len(batch)),
            float(self._planned_steps() if self.processes.main else 0),
            *self._gradients.terms.values(),
        ]
        return self.processes.sum(local)

    def _planned_steps(self) -> int:
        """Steps of the run that fit into its time limit, after the current one."""
        if not self.time_limit:
            return self.total_steps
        period = self.config.val_every * self.timetable.clips_per_epoch / self.config.batch_size
        step = self.progress.step + 1
        return self.time_limit.plan(step, self.total_steps, steps_between_validations=period or math.inf)

    def _shorten(self, planned: int) -> None:
        """Plan the rest of a run with a time limit."""
        if not self.time_limit:
            return
        self.timetable.shorten(min(max(planned, self.progress.step), self._most_steps))
        self.progress.total_steps, self.progress.seconds = self.total_steps, self.time_limit.seconds
        self.reporter.plan(self.total_steps, self.timetable.epochs)

    def _after_step(self, lr: float, *, late: bool) -> None:
        progress = self.progress
        record = {**progress.window.record(self.task.train_figure), **self.watch.record(), "lr": lr}
        record["clips"] = self.timetable.num_clips(progress.step)
        if self._phase:
            record["phase"] = self._phase.number
        epoch_ends = self.timetable.ends_epoch(progress.step)
        ends = epoch_ends or progress.step == self.end_step
        progress.validation_due = self._validates_after(progress.step)
        totals = {"total_steps": self.total_steps, "epochs": self.timetable.epochs}
        self.reporter.step({"step": progress.step, "epoch": self.epoch, **totals, **record})
        self._failure_limit.check(progress.epoch_failures)
        if ends or progress.validation_due or progress.step % self.config.log_every == 0:
            self._write(record)
            if ends:
                self._report_epoch(record)
            progress.window = Window()
            self.watch.reset()
        if epoch_ends:
            progress.epoch_failures = 0
            self._failure_limit = self._new_failure_limit()
        if late or progress.validation_due or progress.step == self.end_step:
            self.save()

    def _validates_after(self, step: int) -> bool:
        """Whether to validate after ``step`` steps; without a validation split, whether to measure batch norm
        statistics (at the end).
        """
        if self.val_set is None:
            return step == self.end_step and self.config.precise_bn > 0
        return step == self.end_step or self.timetable.validates(step)

    def _validate(self, batches: Iterator[ClipBatch]) -> None:
        start = time.perf_counter()
        if self._shards:
            self._shards.refresh()
        if self.config.precise_bn:
            self._measure_batch_norm(batches)
        self.processes.broadcast_from_rank0(self.tested_model.buffers())
        if self.val_set is not None:
            self._test(self.val_set, start)
        if self._shards:
            self._shards.offload()
        self.progress.validation_due = False
        if self.time_limit:
            self.time_limit.after_validation(time.perf_counter() - start)
        self.save()
        set_train_mode(self.model)
        self.watch.reset()

    def _measure_batch_norm(self, batches: Iterator[ClipBatch]) -> None:
        self._phase = None  # the next step sets its phase again
        clips = (self._gradients.prepare(batch) for batch in islice(batches, self.config.precise_bn))
        with self._interruptible(), self._gradients.autocast():
            self.norms.measure(self.tested_model, clips)

    def _test(self, val_set: VideoDataset, start: float) -> None:
        with self._interruptible():
            result = validate_model(
                self.tested_model,
                val_set,
                self.config.val_views,
                config=self.config,
                processes=self.processes,
            )
        progress = self.progress
        final = contract.in_final_form(self.model)
        pause = progress.step < self.total_steps and not self.timetable.validates(progress.step)
        better = progress.see_score(result.score, final=final, pause=pause)
        progress.plateau.see(result.loss, self.config.optim)
        progress.score_name = figure_name(result.score_name)
        if self.processes.main:
            if better:
                self.save_best({"val": result.summary(), "epoch": self.epoch, "step": progress.step})
                result.save(self.run_folder.best_val_scores)
            result.save(self.run_folder.val_scores)
        record = validation_record(result, seconds=time.perf_counter() - start)
        self._write(record)
        self.reporter.epoch(progress.step, self.epoch, [validation_text(result, progress, better=better)])
        self.reporter.validation({"step": progress.step, "epoch": self.epoch, **record, "is_best": better})

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let a signal stop the run immediately, as last.pt is up to date."""
        try:
            with self.interrupts.immediate():
                yield
        except KeyboardInterrupt:
            raise self._interrupted() from None

    def save_best(self, metrics: dict[str, Any]) -> None:
        """Write best.safetensors, with the metadata that `saccade test` and `Predictor` build the model
        from.
        """
        save_weights(
            self.tested_model,
            self.run_folder.best,
            {
                "class_names": list(self.train_set.class_names),
                "clip": asdict(self.config.clip),
                "pairs": [list(pair) for pair in self.train_set.pairs],
                "recipe": self.config.recipe,
                "task": self.config.task,
                "ensemble": self.config.ensemble,
                "temporal_rule": self.config.temporal_rule,
                "metrics": metrics,
                **self.objective.record,
            },
        )

    # ----------------------------------------------------------------------------------------- details

    def _shard(self) -> Shards:
        from saccade.training.shard import Shards  # the import takes a second

        return Shards(self.model, self.average.model if self.average else None, self.processes)

    def _enter(self, phase: Phase | None) -> None:
        """Set the batch norm of a multigrid phase."""
        if phase is None or phase is self._phase:
            return
        self.norms.switch(phase.norm)
        self._phase = phase
        self.reporter.note(f"step {self.progress.step}: {phase}")

    def _set_model_progress(self, num_steps: int) -> None:
        contract.on_train_progress(self.model, num_steps / self.total_steps)

    def _new_failure_limit(self) -> FailureLimit:
        clips = round(self.timetable.clips_per_epoch * self.timetable.sampler.growth)
        return FailureLimit(self.config.max_failures, clips, self.processes)

    def _note_failures(self, batch: ClipBatch) -> None:
        for failure in batch.failures:
            self.reporter.failure(failure.path, failure.cause, failure.replaced_by)

    def _write(self, record: dict[str, Any]) -> None:
        if self.metrics:
            self.metrics.write({"step": self.progress.step, "epoch": round(self.epoch, 6), **record})

    def _report_epoch(self, record: dict[str, Any]) -> None:
        parts = [
            loss_text(record),
            f"{figure_name(self.task.train_figure)} {100 * record[self.task.train_figure]:.1f} %",
            f"{record['clips_per_s']:.1f} clips/s",
            f"data wait {100 * record['data_wait']:.0f} %",
        ]
        if self.progress.epoch_failures:
            parts.append(f"{self.progress.epoch_failures} unreadable")
        self.reporter.epoch(self.progress.step, self.epoch, parts)

    def _stop(self) -> None:
        self.save()
        raise self._interrupted()

    def _interrupted(self) -> RunInterrupted:
        return RunInterrupted(
            f"stopped at step {self.progress.step} of {self.total_steps}, saved in {self.run_folder.last}; "
            f"go on with: saccade train {self.config.recipe} --out "
            f"{shlex.quote(str(self.run_folder.folder))} --resume"
        )

    def _diverged(self, what: str) -> TrainingError:
        group = self.optimizer.param_groups[-1]
        return TrainingError(
            f"{what} at step {self.progress.step} (epoch {self.epoch:.2f}, lr {group['lr']:.3g}); "
            f"{self.run_folder.last} keeps the last good state. Try a lower --optim.lr, a longer "
            "--optim.warmup-epochs or --optim.clip-grad 1"
        )
