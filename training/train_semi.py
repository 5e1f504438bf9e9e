"""Train semi-supervised land-cover segmentation: one loop, any method.

accelerate launch training/train_semi.py                          quick start on drawn scenes, minutes on two CPU cores
accelerate launch training/train_semi.py --dataset dataset.yaml          as `co2s data init` writes it
accelerate launch training/train_semi.py --recipe training/recipes/dubai_tiny.yaml --data_dir …
accelerate launch training/train_semi.py --help
"""

import argparse
import dataclasses
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, set_seed
from torch import nn
from tqdm.auto import tqdm

from co2s_hf.data import synthetic
from co2s_hf.data.description import DatasetDescription
from co2s_hf.data.folders import DataSplit, Sample, check_split, count_class_pixels, find_split, path_of
from co2s_hf.data.label_map import LabelMapError
from co2s_hf.raster.errors import RasterError
from co2s_hf.raster.image import FileWindow, Reading
from co2s_hf.raster.read import image_size
from training.arguments import FREE, parse_arguments, plain_refusals, values_of
from training.batches import EvaluationDataset, SemiDataset, TimedBatches, train_loader
from training.checkpoints import (
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    newest_good_checkpoint,
    save_checkpoint,
)
from training.eval_semi import draw_examples, evaluate
from training.guards import RunLock, Signals, StepGuard, ask_main, plain_end, writing
from training.methods import METHODS
from training.model_folders import complete_cards, recover_model, save_model
from training.models import build_model, model_config
from training.optim import build_optimizer, build_scheduler, parameter_groups, select_trainable
from training.parts.losses import identity
from training.parts.method import Method
from training.parts.schedules import Progress
from training.parts.supervision import median_frequency_weights
from training.pools import FilePool, ImageStream, LabelledPool, StreamError, find_partly_labelled
from training.publisher import LAST, MAIN, Publisher
from training.purification.cache import CacheError, RegionCache
from training.purification.decisions import PurifierSettings, background_ids
from training.purification.purifier import Purifier
from training.records import data_facts, describe_run, require_plausible_values, training_images
from training.report import class_table, draw_curves, percent, write_metrics
from training.tile_cache import TileCache
from training.views import ViewNeeds


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, evaluate and leave a model folder; returns what metrics.json holds."""
    with Signals() as signals, plain_end("train_semi.py", RasterError, LabelMapError, StreamError, CacheError):
        return train(arguments, signals)


def train(arguments: argparse.Namespace, signals: Signals) -> dict[str, Any]:
    """Do what `main` says."""
    # -----------------------------------------------------------------------------------------------------------------
    # Accelerator
    output = Path(arguments.output_dir)
    accelerator = Accelerator(
        mixed_precision=arguments.mixed_precision,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        log_with=None if arguments.report_to == "none" else arguments.report_to,
        project_config=ProjectConfiguration(project_dir=str(output), logging_dir=str(output / "logs")),
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),  # no buffer ever changes
            InitProcessGroupKwargs(timeout=timedelta(minutes=arguments.timeout_minutes)),
        ],
    )
    say = accelerator.on_main_process(tqdm.write)  # above the progress bar
    set_seed(arguments.seed)
    use_cores(accelerator, arguments.cpu_threads)

    # -----------------------------------------------------------------------------------------------------------------
    # Data
    with plain_refusals("train_semi.py"):
        lock = RunLock(output)
        ask_main(accelerator, lock.take)
        checkpoint = ask_main(accelerator, partial(find_checkpoint, output / "checkpoints", arguments.resume, say))
        publisher = open_publisher(arguments, accelerator, say)
        with accelerator.main_process_first():
            split = find_data(arguments)
        reading = find_reading(arguments, split)
        warnings = check_split(split, reading, decode_unlabelled=accelerator.is_main_process)
        is_final = arguments.official or arguments.ignore_is_final or arguments.unlabelled_stream is not None
        partly = [] if is_final else find_partly_labelled(split.labelled, reading)
        arguments.class_weights, class_pixels = count_imbalance(arguments, split, reading)
        scores, purifier = find_scores(arguments, split, partly)
        tiles = open_tile_cache(arguments)
    say(found(split, partly))
    for warning in (*warnings, *precision_warnings(accelerator)):
        say(f"warning: {warning}")

    # -----------------------------------------------------------------------------------------------------------------
    # Method
    with plain_refusals("train_semi.py"):
        model = build_model(arguments, split.classes)
        select_trainable(model, arguments.trainable)
        config = model.config
        config.training_images = training_images(
            split.labelled, reading, gsd_m=data_facts(arguments.data_dir).gsd_m, image_scale=arguments.image_scale
        )
        require_plausible_values(config)
    average_count = identity if accelerator.num_processes == 1 else lambda count: accelerator.reduce(count, "mean")
    with plain_refusals("train_semi.py"):
        method = METHODS[arguments.method].from_arguments(model, arguments, average_count, purifier=purifier)
        pool = unlabelled_pool(arguments, split, partly, method.needs, reading, accelerator)
    temperature = arguments.rare_class_temperature
    labelled = LabelledPool(
        split.labelled,
        seed=arguments.seed,
        class_pixels=None if temperature is None else class_pixels,
        temperature=temperature or 1.0,
    )
    positions_per_step = arguments.batch_size * accelerator.num_processes * arguments.gradient_accumulation_steps
    dataset = SemiDataset(
        labelled,
        pool,
        crop_px=arguments.crop_px,
        seed=arguments.seed,
        views=method.needs,
        mean=config.image_mean,
        std=config.image_std,
        scale_range=tuple(arguments.scale_range),
        image_scale=arguments.image_scale,
        hue_range=arguments.hue_range,
        reading=reading,
        cache_bytes=int(arguments.cache_gb * 2**30),
        tiles=tiles,
        scores=scores,
        first_unlabelled=method.needs.from_step * positions_per_step,
    )
    validation = EvaluationDataset(
        split.validation,
        mean=config.image_mean,
        std=config.image_std,
        image_scale=arguments.image_scale,
        reading=reading,
    )

    # -----------------------------------------------------------------------------------------------------------------
    # Optimizer
    groups = parameter_groups(
        model,
        lr=arguments.lr,
        backbone_factor=arguments.backbone_factor,
        head_factor=arguments.head_factor,
        weight_decay=arguments.weight_decay,
    )
    total_steps = arguments.max_steps
    method.model, optimizer = accelerator.prepare(model, build_optimizer(groups))
    # Not prepared: the loop counts optimizer steps, accelerate would count one for each process.
    scheduler = build_scheduler(optimizer.optimizer, total_steps, arguments.warmup_steps, released=arguments.official)
    accelerator.register_for_checkpointing(scheduler, method)

    # -----------------------------------------------------------------------------------------------------------------
    # Resume
    fingerprint = {name: value for name, value in vars(arguments).items() if name not in FREE}
    fingerprint["images"] = fingerprint_of(split)
    with plain_refusals("train_semi.py"):
        start, state = begin(accelerator, checkpoint, fingerprint, output / "best", say)
    accelerator.init_trackers("co2s_hf", {name: str(value) for name, value in fingerprint.items()})

    # -----------------------------------------------------------------------------------------------------------------
    # Loop: `step` steps are finished at its top, so that the last evaluation and checkpoint take the same path
    guard = StepGuard(
        accelerator,
        model,
        optimizer.optimizer,
        limit=arguments.max_skipped_steps,
        kept=method.state_dict,
        skipped=state["skipped_steps"],
        say=say,
    )
    guard.require_finite_start(checkpoint)
    batches = TimedBatches(
        train_loader(
            dataset,
            batch_size=arguments.batch_size,
            start_step=start,
            total_steps=total_steps,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            accumulation=arguments.gradient_accumulation_steps,
            num_workers=arguments.num_workers,
            device=accelerator.device,
        )
    )
    progress_bar = tqdm(
        total=total_steps, initial=start, desc=arguments.method, disable=not accelerator.is_main_process
    )
    method.model.train()
    started = time.monotonic() - state.get("seconds", 0.0)  # as if a resumed run had never stopped
    signals.listen(accelerator if arguments.save_on_signal else None)
    for step in range(start, total_steps + 1):
        last, changed = step == total_steps, step > start
        stop = signals.agreed()
        if not stop and step > 0 and (last or step % arguments.eval_every == 0) and not evaluated(state, step):
            guard.require_finite(step, checkpoint)
            results = evaluate(
                accelerator.unwrap_model(method.saved()),
                validation,
                accelerator,
                threshold=arguments.threshold,
                align_corners=arguments.official,
                stopped=signals.wanted,
            )
            stop = signals.agreed(at_once=True)  # then the numbers are of some of the images
            batches.pause()
            if not stop:
                changed = True
                state["history"].append({"step": step, **results})
                state["seconds"] = time.monotonic() - started
                accelerator.log(flatten(results), step=step)
                say(summary(step, results, arguments.absent_as_zero))
                if is_best(state, step, results[main_prediction(model)][mean_iou_key(arguments.absent_as_zero)]):
                    ask_main(accelerator, lock.require)
                    save_model(accelerator, method.saved(), output / "best", arguments, split, state)
                    push(publisher, output / "best", MAIN, f"Best model so far, step {step}")
        due = step % arguments.save_every == 0 and not guard.failing()  # what was saved ahead of failing steps stays
        if changed and (stop or last or due):
            guard.require_finite(step, checkpoint)
            state["skipped_steps"] = guard.read(step, checkpoint)
            state["seconds"] = time.monotonic() - started
            ask_main(accelerator, lock.require)
            checkpoint = save_checkpoint(
                accelerator,
                output / "checkpoints",
                step=step,
                state=state,
                fingerprint=fingerprint,
                keep=arguments.keep_checkpoints,
            )
            batches.pause()
        if stop:
            leave(accelerator, stop, step, checkpoint, say)
        if last:
            break

        # -------------------------------------------------------------------------------------------------------------
        # One optimizer step
        progress = Progress(step, total_steps)
        for _ in range(arguments.gradient_accumulation_steps):
            batch = next(batches)
            with accelerator.accumulate(method.model):
                scalars = method.step(batch, progress)
                accelerator.backward(guard.marked(scalars["loss"]))
                guard.judge()
                optimizer.step()
                optimizer.zero_grad()
        scheduler.step()
        method.after_step(progress)
        # -------------------------------------------------------------------------------------------------------------

        progress_bar.update()
        if (step + 1) % arguments.log_every == 0:
            logged = {name: value.item() for name, value in scalars.items()}
            state["skipped_steps"] = guard.read(step + 1, checkpoint, logged["loss"])
            state["losses"].append({"step": step + 1, **logged})
            more = {"waiting_for_batches": batches.waiting_share, "skipped_steps": state["skipped_steps"]}
            accelerator.log({**logged, **more}, step=step + 1)
            progress_bar.set_postfix(loss=f"{logged['loss']:.3f}", waiting=f"{batches.waiting_share:.0%}")
    progress_bar.close()
    signals.stop_listening()

    # -----------------------------------------------------------------------------------------------------------------
    # What the run leaves
    metrics = {"method": arguments.method, "steps": total_steps, **describe_run(arguments), **state}
    metrics["waiting_for_batches"] = batches.waiting_share
    ask_main(accelerator, lock.require)
    save_model(accelerator, method.saved(), output / "model", arguments, split, state)
    with writing(accelerator, str(output)):
        write_report(accelerator, method, validation, metrics, arguments, split, state)
    if accelerator.is_main_process:
        say(class_table(state["history"][-1], split.classes))
        finish_pushing(publisher, output, total_steps)
        say(
            f"\n{output}/ holds model/, best/, metrics.json, curves.png and panel.png. Load the model with\n"
            f"    import co2s_hf; from transformers import AutoModel\n"
            f'    model = AutoModel.from_pretrained("{output / "model"}")'
        )
    accelerator.end_training()
    return metrics


# ---------------------------------------------------------------------------------------------------------------------
# Parts of the script
# ---------------------------------------------------------------------------------------------------------------------


def use_cores(accelerator: Accelerator, threads: int | None) -> None:
    """Share the cores out among the processes: accelerate's launcher leaves each of them one thread."""
    if accelerator.device.type == "cpu":
        neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))  # processes of this machine
        torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // neighbours))


def precision_warnings(accelerator: Accelerator) -> list[str]:
    """What accelerate does not say: on a CPU it leaves fp16 out."""
    left_out = accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu"
    return ["A CPU does not train in fp16: this run does in float32."] if left_out else []


def find_checkpoint(folder: Path, resume: bool, say: Callable[[str], None]) -> Path | None:
    """The checkpoint to continue from; refuses to mix two runs in one folder before any work starts."""
    if resume:
        good, problems = newest_good_checkpoint(folder)
        for problem in problems:
            say(f"warning: {problem}")
        if good is None:
            raise CheckpointError(
                f"--resume found no finished {'and undamaged ' if problems else ''}checkpoint in {folder}: start "
                "without it, or check --output_dir."
            )
        return good
    latest = latest_checkpoint(folder)
    if latest is not None:
        raise CheckpointError(
            f"{folder.parent} already holds a run ({latest.name}): continue it with --resume, choose another "
            f"--output_dir, or remove the folder."
        )
    return None


def begin(
    accelerator: Accelerator,
    checkpoint: Path | None,
    fingerprint: dict[str, Any],
    best: Path,
    say: Callable[[str], None],
) -> tuple[int, dict[str, Any]]:
    """Finished steps and state of the loop: those of a checkpoint, or of a new run."""
    if checkpoint is None:
        return 0, {"history": [], "losses": [], "best_mean_iou": None, "seconds": 0.0, "skipped_steps": 0}
    start, state = load_checkpoint(accelerator, checkpoint, fingerprint=fingerprint)
    say(f"resumed from {checkpoint} after step {start}")
    if state["best_mean_iou"] is not None and not ask_main(accelerator, partial(recover_model, best, say)):
        state["best_mean_iou"] = None
    return start, state


def find_data(arguments: argparse.Namespace) -> DataSplit:
    """Lists of images and masks, without unlabelled ones where they come from a stream."""
    split = listed_data(arguments)
    return split if arguments.unlabelled_stream is None else dataclasses.replace(split, unlabelled=())


def listed_data(arguments: argparse.Namespace) -> DataSplit:
    """Lists of images and masks: as described, of the user's folder, or of scenes drawn for the quick start."""
    if arguments.dataset is not None:
        return DatasetDescription.load(arguments.dataset).find_split()
    if arguments.data_dir is None:
        folder = Path(arguments.output_dir) / "scenes"
        return synthetic.write_scenes(folder, seed=arguments.seed, **arguments.scenes)
    return find_split(
        arguments.data_dir,
        classes=arguments.classes,
        images=arguments.images,
        masks=arguments.masks,
        labelled=arguments.labelled,
        unlabelled=arguments.unlabelled,
        validation=arguments.validation,
        scene_pattern=arguments.scene_pattern,
        validation_fraction=arguments.validation_fraction,
        seed=arguments.seed,
    )


def find_reading(arguments: argparse.Namespace, split: DataSplit) -> Reading:
    """How images are read: the bands by the names that they have in the files, or else in the model."""
    given = values_of(arguments)
    if arguments.file_bands is not None:
        return Reading(names=tuple(arguments.file_bands), **given)
    return Reading.for_model(model_config(arguments, split.classes), **given)


def count_imbalance(
    arguments: argparse.Namespace, split: DataSplit, reading: Reading
) -> tuple[list[float] | None, dict[Path | FileWindow, list[int]] | None]:
    """The class weights as numbers, and the pixels of each class in every labelled image; None where not asked for."""
    weights = arguments.class_weights
    balanced = weights == ["balanced"]
    class_pixels = None
    if balanced or arguments.rare_class_temperature is not None:
        class_pixels = count_class_pixels(split.labelled, len(split.classes), reading)
        if not any(map(any, class_pixels.values())):
            raise ValueError(
                "No pixel of the labelled images has a class, so --class_weights balanced and --rare_class_temperature "
                "have no shares to go by; expected some. Check the label map, or leave both out."
            )
    if balanced:
        return median_frequency_weights(list(class_pixels.values())), class_pixels
    if weights is not None and len(weights) != len(split.classes):
        raise ValueError(f"--class_weights has {len(weights)} numbers; expected {len(split.classes)}, one per class.")
    return None if weights is None else [float(one) for one in weights], class_pixels


def find_scores(
    arguments: argparse.Namespace, split: DataSplit, partly: Sequence[tuple[Sample, float]]
) -> tuple[RegionCache | None, Purifier | None]:
    """The scores that --purify names, and the purifier that uses them; None without."""
    if arguments.purify is None:
        return None, None
    scores = RegionCache(arguments.purify)
    if scores.classes != list(split.classes):
        raise CacheError(
            f"{arguments.purify} holds scores of the classes {', '.join(scores.classes)}; expected "
            f"{', '.join(split.classes)}. Run training/purify_labels.py for this data set."
        )
    members = [*split.unlabelled, *(sample for sample, _ in partly)]
    missing = scores.missing(sample.image for sample in members)
    if missing:
        raise CacheError(
            f"{arguments.purify} lacks the scores of {len(missing)} of {len(members)} images of the pool, such "
            f"as {missing[0]}. Run training/purify_labels.py again: it does what is missing."
        )
    given = {"background": background_ids(split.classes), "barred": scores.calibration().barred}
    if arguments.class_share:  # confidences are relative to the threshold then: all that does not reach it is uncertain
        given |= {"tau": arguments.threshold, "c_relabel": arguments.threshold}
    settings = PurifierSettings(**{**given, **(arguments.purifier or {})})
    return scores, Purifier(settings, arguments.threshold)


def open_tile_cache(arguments: argparse.Namespace) -> TileCache | None:
    """The folder of decoded images that --tile_cache names; None without."""
    if arguments.tile_cache is None:
        return None
    return TileCache(arguments.tile_cache, limit_bytes=int(arguments.tile_cache_gb * 2**30))


def unlabelled_pool(
    arguments: argparse.Namespace,
    split: DataSplit,
    partly: Sequence[tuple[Sample, float]],
    needs: ViewNeeds,
    reading: Reading,
    accelerator: Accelerator,
) -> FilePool | ImageStream | None:
    """Where the unlabelled images of this process come from; None for a method that needs none."""
    if not needs.unlabelled:
        return None
    if arguments.unlabelled_stream is not None:
        stream = ImageStream(
            arguments.unlabelled_stream,
            arguments.stream_column,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        stream.check(reading)
        return stream
    members = (*split.unlabelled, *(sample for sample, _ in partly))
    # The released code shows every image once in a pass, whatever its size.
    areas = None if arguments.official else [math.prod(image_size(sample.image)) for sample in members]
    return FilePool(split.unlabelled, partly_labelled=partly, areas=areas, seed=arguments.seed)


def find_palette(arguments: argparse.Namespace) -> Sequence[tuple[int, int, int]] | None:
    """RGB colours of the classes, None where they are not all known."""
    if arguments.dataset is not None:
        colours = [one.colour for one in DatasetDescription.load(arguments.dataset).classes]
        known = [colour for colour in colours if colour is not None]
        return known if len(known) == len(colours) else None
    return synthetic.PALETTE if arguments.data_dir is None else None


def found(split: DataSplit, partly: Sequence[tuple[Sample, float]]) -> str:
    """What there is to learn from, for the terminal."""
    text = (
        f"{len(split.labelled)} labelled, {len(split.unlabelled)} unlabelled, {len(split.validation)} validation images"
    )
    if not partly:
        return text
    share = 100 * sum(share for _, share in partly) / len(partly)
    return f"{text}\n{len(partly)} labelled images are {share:.1f} % unlabelled: those pixels join the unlabelled pool"


def open_publisher(
    arguments: argparse.Namespace, accelerator: Accelerator, say: Callable[[str], None]
) -> Publisher | None:
    """The way to the Hub of the main process, checked before any work starts; None where it is not asked for."""
    if arguments.push_to_hub is None or not accelerator.is_main_process:
        return None
    scratch = Path(arguments.output_dir) / ".push"
    return Publisher(arguments.push_to_hub, scratch, private=arguments.hub_private, say=say)


def push(publisher: Publisher | None, folder: Path, branch: str, message: str) -> None:
    """Push in the background, if pushing was asked for."""
    if publisher is not None:
        publisher.submit(folder, branch, message)


def finish_pushing(publisher: Publisher | None, output: Path, steps: int) -> None:
    """Push what the run leaves, with its last cards, and wait for it."""
    if publisher is not None:
        best = output / "best"
        publisher.submit(best if best.is_dir() else output / "model", MAIN, "Best model of the run")
        publisher.submit(output / "model", LAST, f"Model after step {steps}")
        publisher.finish()


def fingerprint_of(split: DataSplit) -> dict[str, list[str]]:
    """File names of each part, with those of masks: a run resumes on the images it started with."""
    return {
        part: [
            " ".join(
                "/".join((*path_of(file).parts[-2:-1], file.name))
                for file in (sample.image, sample.mask)
                if file is not None
            )
            for sample in getattr(split, part)
        ]
        for part in ("labelled", "unlabelled", "validation")
    }


def mean_iou_key(absent_as_zero: bool) -> str:
    """Name of the score that selects the best model."""
    return "mean_iou_absent_zero" if absent_as_zero else "mean_iou"


def main_prediction(model: nn.Module) -> str:
    """Name of the prediction that users of the model get: the fused one, or that of the only student."""
    return next(name for name, field in model.predictions.items() if field == "logits")


def summary(step: int, results: dict[str, Any], absent_as_zero: bool) -> str:
    """One line for the terminal."""
    key = mean_iou_key(absent_as_zero)
    scores = ", ".join(f"{name} {percent(numbers[key])}" for name, numbers in results.items())
    return f"step {step}: mIoU {scores}"


def flatten(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Evaluation numbers under the names trackers show: fused/mean_iou, …"""
    return {
        f"{name}/{key}": value
        for name, numbers in results.items()
        for key, value in numbers.items()
        if isinstance(value, float) and math.isfinite(value)
    }


def is_best(state: dict[str, Any], step: int, score: float) -> bool:
    """Note the score of an evaluation in the state if it is the best one so far."""
    best = state["best_mean_iou"]
    if not math.isfinite(score) or (best is not None and score <= best):
        return False
    state.update(best_mean_iou=score, best_step=step, best_seconds=state["seconds"])
    return True


def write_report(
    accelerator: Accelerator,
    method: Method,
    validation: EvaluationDataset,
    metrics: dict[str, Any],
    arguments: argparse.Namespace,
    split: DataSplit,
    state: dict[str, Any],
) -> None:
    """Write numbers, curves, panel and the last cards, on the main process."""
    if not accelerator.is_main_process:
        return
    output, model = Path(arguments.output_dir), accelerator.unwrap_model(method.saved())
    names = ("step", "loss", *(f"loss_{student}" for student in method.students))
    losses = [{name: row[name] for name in names} for row in state["losses"]]
    write_metrics(output / "metrics.json", metrics)
    draw_curves(state["history"], output / "curves.png", method=arguments.method, losses=losses)
    draw_examples(model, validation, accelerator, output / "panel.png", palette=find_palette(arguments))
    complete_cards(output, arguments, split, state)


def evaluated(state: dict[str, Any], step: int) -> bool:
    """Say whether the evaluation after a step is done; a run that was stopped during it has it still ahead."""
    return bool(state["history"]) and state["history"][-1]["step"] == step


def leave(
    accelerator: Accelerator, number: int, step: int, checkpoint: Path | None, say: Callable[[str], None]
) -> NoReturn:
    """End the program as its signal wants it, its checkpoint being saved."""
    saved = "nothing was done yet" if checkpoint is None else f"{checkpoint} holds all of it: go on with --resume"
    say(f"stopped by {signal.Signals(number).name} after step {step}; {saved}")
    accelerator.end_training()
    raise SystemExit(128 + number)


if __name__ == "__main__":
    parsed = parse_arguments()
    parsed.command = shlex.join(["accelerate", "launch", *sys.argv])
    main(parsed)
