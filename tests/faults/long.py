"""Work that goes on for long, and what it holds on to: python tests/faults/long.py --steps 5000 --output FOLDER.

A training of the tiny model with evaluations, checkpoints and a worker; a purification; and scenes mapped one after the
other in one process. Every few steps memory, file handles, threads, child processes and the disk are looked at:
FOLDER/WORK.csv and WORK.png. The exit status is 1 where memory grows by more than `GROWTH_MB` behind the warm-up, or
where handles, threads or processes are more at the end than they were then; see `problems`.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # threads do not survive a fork
sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, its own folder is all there is

import numpy as np  # noqa: E402
import rasterio  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation, Co2SImageProcessor  # noqa: E402
from co2s_hf.__main__ import main as co2s  # noqa: E402
from co2s_hf.geo import command as geo  # noqa: E402
from tests.faults import jobs  # noqa: E402
from tests.faults.children import start, wait  # noqa: E402
from training.methods.co2s import Co2S  # noqa: E402

GROWTH_MB = 8.0
"""More is a leak: what a training notes down of its steps is a kilobyte for each line of its log."""
JUMPS = 2
"""So many times as much in all is one, too, however it came."""
EVERY = {"training": 25, "purification": 25, "mapping": 5}
"""Steps, images or scenes between two looks; fewer where there are few."""
SHARE = {"training": 1.0, "purification": 0.4, "mapping": 0.06}
"""Images and scenes for each step: 2,000 and 300 for 5,000."""
LEAST = {"training": 200, "purification": 200, "mapping": 300}
WARM_UP = 0.1
"""Part of the work that is not looked at."""
HOURS = 3600.0


@dataclass(frozen=True)
class Look:
    """What a process holds, after so many steps.

    Attributes:
        step: finished steps, images or scenes.
        memory_mb: its anonymous memory, and `worker_mb` that of its children.
        handles: open files. `threads`, `children`: how many.
        disk_mb: all below its output folder.
    """

    step: int
    memory_mb: float
    worker_mb: float
    handles: int
    threads: int
    children: int
    disk_mb: float


class Watch:
    """Looks at this process after every so many steps, and writes each look to a file at once.

    Args:
        file: CSV to write.
        every: steps.
        output: folder of the work.
    """

    def __init__(self, file: Path, every: int, output: Path) -> None:
        """Start with a heading."""
        self.file, self.every, self.output, self.steps = file, every, output, 0
        file.write_text(",".join(field.name for field in fields(Look)) + "\n")

    def step(self) -> None:
        """Count a step, and look if it is time to."""
        self.steps += 1
        if self.steps % self.every == 0:
            with self.file.open("a", newline="") as file:
                csv.writer(file).writerow(asdict(look(self.steps, self.output)).values())

    def after(self, owner: Any, name: str) -> None:
        """Count each call of a function as a step."""
        original = getattr(owner, name)

        def counting(*arguments: Any, **named: Any) -> Any:
            found = original(*arguments, **named)
            self.step()
            return found

        setattr(owner, name, counting)


def look(step: int, output: Path) -> Look:
    """What this process holds now."""
    own = _status(os.getpid())
    tasks = Path("/proc/self/task").iterdir()
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    return Look(
        step,
        memory_mb=round(own["RssAnon"] / 1024, 2),
        worker_mb=round(sum(_status(child)["RssAnon"] for child in children) / 1024, 2),
        handles=len(os.listdir("/proc/self/fd")),
        threads=own["Threads"],
        children=len(children),
        disk_mb=_disk_mb(output),
    )


def _disk_mb(folder: Path) -> float:
    """Counted by a process of its own: a list of thousands of files here would be taken for a leak of the work."""
    said = subprocess.run(["du", "--summarize", "--block-size=1", folder], capture_output=True, text=True).stdout
    return round(int(said.split()[0]) / 2**20, 2)


def _status(process: int | str) -> dict[str, int]:
    lines = (line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[0] in ("RssAnon:", "Threads:")}


# ---------------------------------------------------------------------------------------------------------------------
# The work
# ---------------------------------------------------------------------------------------------------------------------


def train(base: Path, steps: int, watch: Callable[[Path], Watch]) -> None:
    """Train two tiny students, with ten evaluations, a checkpoint every hundred steps, and a worker."""
    training = jobs.Training(base)
    watch(base / "run").after(Co2S, "after_step")
    often = dict(eval_every=max(1, steps // 10), save_every=100, keep_checkpoints=2, log_every=10, num_workers=1)
    training.run(base, max_steps=steps, **often)


def purify(base: Path, images: int, watch: Callable[[Path], Watch]) -> None:
    """Score the regions of images."""
    work = jobs.Purification(base, images)
    watch(base / "run").after(jobs.ColourScorer, "score")
    work.run(base)


def map_scenes(base: Path, scenes: int, watch: Callable[[Path], Watch]) -> None:
    """Map small scenes with one model."""
    model, folder = base / "model", base / "scenes"
    config = Co2SConfig.from_backbones(None, None, ["a", "b"], window_px=64)
    Co2SForSemanticSegmentation(config).save_pretrained(model)
    Co2SImageProcessor().save_pretrained(model)
    folder.mkdir()
    for number in range(scenes):
        pixels = np.random.default_rng(number).integers(0, 256, (3, 96, 112), np.uint8)
        where = dict(crs="EPSG:32633", transform=rasterio.Affine(2, 0, 500_000, 0, -2, 5_000_000))
        size = dict(height=96, width=112, count=3, dtype="uint8")
        with rasterio.open(folder / f"s{number:04d}.tif", "w", driver="GTiff", **size, **where) as file:
            file.write(pixels)
    watch(base / "run").after(geo, "predict_scene")
    status = co2s(["predict", str(folder), "--model", str(model), "--output", str(base / "run")])
    if status:
        raise SystemExit(status)


WORK: dict[str, Callable[[Path, int, Callable[[Path], Watch]], None]] = {
    "training": train,
    "purification": purify,
    "mapping": map_scenes,
}


# ---------------------------------------------------------------------------------------------------------------------
# The judgement
# ---------------------------------------------------------------------------------------------------------------------


def problems(looks: Sequence[Look]) -> list[str]:
    """What goes on growing behind the warm-up; nothing where all is well.

    Memory grows as it does from most tenths of the looks to the next one: what is held grows in all of them, while the
    heap of a process now and then takes some MB at once, for good. Many such jumps are too many all the same.
    """
    tenth, first = len(looks) // 10, round(WARM_UP * len(looks))
    if tenth < 1:
        return [f"only {len(looks)} looks: too few to tell"]
    parts = [looks[start : start + tenth] for start in range(first, len(looks) - tenth + 1, tenth)]
    found = []
    for name in ("memory_mb", "worker_mb"):
        held = np.array([np.median([getattr(one, name) for one in part]) for part in parts])
        growth = max(np.median(np.diff(held)) * (len(parts) - 1), (held[-1] - held[0]) / JUMPS)
        if growth > GROWTH_MB:
            found.append(f"{name} grew from {held[0]:.1f} to {held[-1]:.1f}")
    for name in ("handles", "threads", "children"):
        before, after = (max(getattr(one, name) for one in part) for part in (parts[0], looks[-tenth:]))
        if after > before:
            found.append(f"{name} grew from {before} to {after}")
    return found


def read(file: Path) -> list[Look]:
    """The looks of a CSV."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [Look(**{field.name: field.type(row[field.name]) for field in fields(Look)}) for row in rows]  # type: ignore[operator]


def summary(looks: Sequence[Look]) -> str:
    """The slope of the memory behind the warm-up, and the extremes of everything there."""
    late = looks[round(WARM_UP * len(looks)) :]
    steps = [one.step for one in late]
    slope = np.polyfit(steps, [one.memory_mb for one in late], 1)[0] * 1000
    names = [field.name for field in fields(Look)][1:]
    extremes = [f"{name} {min(values):g} to {max(values):g}" for name, values in _columns(late, names)]
    return f"{steps[-1]} steps, memory {slope:+.2f} MB per 1,000; {', '.join(extremes)}"


def draw(looks: Sequence[Look], title: str, path: Path) -> None:
    """Draw everything over the steps."""
    panels = {
        "MB of memory": ("memory_mb", "worker_mb"),
        "open handles": ("handles",),
        "count": ("threads", "children"),
        "MB on disk": ("disk_mb",),
    }
    figure = Figure(figsize=(8, 8), dpi=110, layout="constrained")
    axes = figure.subplots(len(panels), sharex=True)
    for axis, (label, names) in zip(axes, panels.items(), strict=True):
        for name, values in _columns(looks, names):
            axis.plot([one.step for one in looks], values, label=name)
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
        axis.grid(color="0.9")
        axis.legend(loc="lower right", frameon=False, ncols=2)
    axes[0].set_title(title, loc="left")
    axes[-1].set_xlabel("steps, images or scenes")
    FigureCanvasAgg(figure)
    figure.savefig(path)


def _columns(looks: Sequence[Look], names: Sequence[str]) -> list[tuple[str, list[float]]]:
    return [(name, [getattr(one, name) for one in looks]) for name in names]


def one_work(name: str, base: Path, steps: int, output: Path) -> str:
    """Do one kind of work in a process of its own; gives what was lost."""
    count = max(LEAST[name], round(steps * SHARE[name]))
    watch = partial(Watch, output / f"{name}.csv", min(EVERY[name], count // 20))
    (status,) = wait([start(partial(WORK[name], base, count, watch), output / f"{name}.log")], 8 * HOURS)
    if status != 0:
        lines = (output / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return f"{name} ended with {status}: {' | '.join(lines[-3:])}"
    looks = read(output / f"{name}.csv")
    draw(looks, f"{name}, {count}", output / f"{name}.png")
    print(f"{name}: {summary(looks)}", flush=True)
    return ", ".join(f"{name}: {problem}" for problem in problems(looks))


def held(base: Path, tries: int) -> Iterator[str]:
    """For the table: each work once, `tries` steps of training."""
    for name in WORK:
        (base / name).mkdir()
        yield one_work(name, base / name, tries, base)


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a command; 1 where something grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5000, help="of training; 2,000 images and 300 scenes for 5,000")
    parser.add_argument("--output", type=Path, required=True, help="folder for the CSV files, plots and logs")
    parser.add_argument("--only", choices=sorted(WORK), help="kind of work")
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    lost = []
    for name in WORK if arguments.only is None else [arguments.only]:
        with tempfile.TemporaryDirectory(prefix="co2s_long_") as base:
            lost.append(one_work(name, Path(base), arguments.steps, arguments.output))
        if lost[-1]:
            print(f"LOST  {lost[-1]}", flush=True)
    return int(any(lost))


if __name__ == "__main__":
    sys.exit(main())
