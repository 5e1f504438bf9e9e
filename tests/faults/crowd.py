"""A crowd on the Space: `python tests/faults/crowd.py [--tries 1000] [--at_once 20]`, with the extra `space`.

Each request is a user of its own, who uploads an image, has it segmented by a tiny model and waits for the map. None
may be lost, and after the first tenth the memory of the page may not grow by more than `GROWTH`.
"""

import argparse
import io
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, its own folder is all there is

import httpx
import numpy as np
from PIL import Image

from tests.faults.judge import ROOT, Row, table

GROWTH = 1.10
PATIENCE_S = 120  # of one user


def run(seed: int = 0, tries: int = 1000, at_once: int = 20) -> list[Row]:
    """Send `tries` users, `at_once` at a time; one row."""
    row = Row(f"Space, {at_once} at a time")
    images = [_image(np.random.default_rng((seed, i)).integers(0, 256, (64, 64, 3), np.uint8)) for i in range(8)]
    with tempfile.TemporaryDirectory(prefix="co2s_crowd_") as folder, _page(Path(folder)) as (address, model, pid):
        button = _button(address)
        memory, handles = [], []
        with ThreadPoolExecutor(at_once) as pool:
            for first in range(0, tries, max(tries // 10, 1)):
                numbers = range(first, min(first + max(tries // 10, 1), tries))
                for outcome in pool.map(lambda i: _user(address, button, model, images[i % 8]), numbers):
                    _count(row, *outcome)
                memory.append(_rss_mb(pid))
                handles.append(len(os.listdir(f"/proc/{pid}/fd")))
                print(f"{row.tries} users, {memory[-1]:.0f} MB, {handles[-1]} file handles", file=sys.stderr)
    if memory[-1] > GROWTH * memory[0]:
        row.results -= 1
        row.escaped[f"memory grew from {memory[0]:.0f} to {memory[-1]:.0f} MB"] += 1
        row.examples = {what: "all of them" for what in row.escaped}
    row.slowest = f"a user; {memory[0]:.0f} to {memory[-1]:.0f} MB, {handles[0]} to {handles[-1]} file handles"
    return [row]


def _count(row: Row, error: str, seconds: float) -> None:
    row.tries += 1
    row.slowest_s = max(row.slowest_s, seconds)
    if error:
        row.escaped[error] += 1
        row.examples.setdefault(error, f"user {row.tries}")
    else:
        row.results += 1


def _user(address: str, button: dict[str, Any], model: str, image: bytes) -> tuple[str, float]:
    """One user; an empty text where the map came."""
    started = time.monotonic()
    try:
        with httpx.Client(base_url=f"{address}/gradio_api", timeout=PATIENCE_S) as client:
            answer = client.post("/upload", files={"files": ("scene.png", image, "image/png")})
            (path,) = answer.raise_for_status().json()
            file = {"path": path, "orig_name": "scene.png", "size": len(image), "meta": {"_type": "gradio.FileData"}}
            session = secrets.token_hex(6)
            asked = {"data": [file, model, "", None], "fn_index": button["id"], "session_hash": session}
            asked |= {"event_data": None, "trigger_id": button["targets"][0][0]}
            client.post("/queue/join", json=asked).raise_for_status()
            with client.stream("GET", "/queue/data", params={"session_hash": session}) as stream:
                for line in stream.iter_lines():
                    told = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                    if told.get("msg") == "process_completed":
                        has_map = told["success"] and "megapixels in" in json.dumps(told["output"], ensure_ascii=False)
                        return "" if has_map else f"no map: {str(told)[:200]}", time.monotonic() - started
                return "the page closed the line", time.monotonic() - started
    except (httpx.HTTPError, ValueError) as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - started


def _button(address: str) -> dict[str, Any]:
    """What a click on Segment calls."""
    config = httpx.get(f"{address}/config").raise_for_status().json()
    (segment,) = (one["id"] for one in config["components"] if one["props"].get("elem_id") == "segment")
    return next(one for one in config["dependencies"] if [segment, "click"] in one["targets"])


def _image(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _rss_mb(pid: int) -> float:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@contextmanager
def _page(folder: Path) -> Iterator[tuple[str, str, int]]:
    """The page on a free port, with a tiny model: its address, the model, its process."""
    from co2s_hf import Co2SConfig, Co2SForSemanticSegmentation, Co2SImageProcessor

    model = folder / "model"
    Co2SForSemanticSegmentation(Co2SConfig.from_backbones(None, None, ["a", "b"], window_px=64)).save_pretrained(model)
    Co2SImageProcessor().save_pretrained(model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "CO2S_MODEL": str(model),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(folder),
    }
    environment.pop("PYTHONPATH", None)
    with (folder / "log").open("w") as log:
        place = ROOT / "model_cards" / "space"
        app = subprocess.Popen([sys.executable, "app.py"], cwd=place, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with socket.socket() as line:
                if app.poll() is not None or line.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        if app.poll() is not None:
            raise OSError(f"The page did not start: {(folder / 'log').read_text()}")
        yield f"http://127.0.0.1:{port}", str(model), app.pid
    finally:
        app.terminate()
        app.wait(timeout=30)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command; 1 where a request was lost or the memory grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--at_once", type=int, default=20)
    given = parser.parse_args(arguments)
    rows = run(tries=given.tries, at_once=given.at_once)
    print(table(rows))
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
