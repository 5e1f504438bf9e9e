"""A page that segments an image with a model of co2s_hf: drop an image, see the map, take the mask along.

Start it with `CO2S_MODEL=user/model python app.py`. Images are read by the package; models are loaded by name, through
transformers alone. README.md lists the environment variables.
"""

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr

import page_parts as html
import scene_file
from results import Result
from scene_file import BandsError, Scene, UploadError
from segmenter import ModelError, Segmenters
from settings import Settings

SESSION_SECONDS = 3600  # how long files and results of a page that nobody touches are kept
MAX_WAITING = 20  # users in the queue; the next one is told to come back
MAX_SESSIONS = 32  # with a result in memory
RESULT = "result_"
HERE = Path(__file__).parent
logger = logging.getLogger(__name__)
SET_OPACITY = "(value) => { document.documentElement.style.setProperty('--opacity', value / 100); }"
INTRODUCTION = (
    "# Land cover from aerial and satellite images\n"
    "Drop an image, press **Segment**, take the map into your GIS. "
    "GeoTIFFs keep their place and give areas in hectares."
)


class Page:
    """The components of the page, and what happens when a user touches them."""

    def __init__(self, settings: Settings, folder: Path):
        """Build the page; files of users go below `folder`."""
        self.settings, self.folder = settings, folder
        self.segmenters = Segmenters()
        self.one_at_a_time = threading.Lock()  # a run that was given up computes on until it ends
        with gr.Blocks(
            title="Land cover", analytics_enabled=False, delete_cache=(SESSION_SECONDS // 6, SESSION_SECONDS)
        ) as self.blocks:
            self.session = gr.State(None, time_to_live=SESSION_SECONDS, delete_callback=_forget)
            gr.Markdown(INTRODUCTION)
            with gr.Row(equal_height=False):
                with gr.Column(scale=3, min_width=280):
                    self._build_controls()
                with gr.Column(scale=8, min_width=280):
                    self._build_map()
        with self.blocks:
            self._connect()

    def _build_controls(self) -> None:
        names = list(self.settings.models)
        self.model = gr.Dropdown(
            names,
            value=names[0] if names else None,
            label="Model",
            info="From the list, or any other: user/model on the Hub." if self.settings.any_model else None,
            allow_custom_value=self.settings.any_model,
            elem_id="model",
        )
        self.upload = gr.File(label="Image: PNG, JPEG or GeoTIFF", height=190, elem_id="upload")
        self.facts = gr.HTML(elem_id="facts", padding=False)
        self.bands = gr.Textbox(
            label="Bands",
            info="Numbers of the bands that the model gets, in its order.",
            visible=False,
            elem_id="bands",
        )
        self.button = gr.Button("Segment", variant="primary", size="lg", elem_id="segment")
        self.message = gr.HTML(elem_id="message", padding=False)
        gr.HTML(html.limits(self.settings.max_megabytes, self.settings.max_megapixels), elem_id="limits", padding=False)

    def _build_map(self) -> None:
        with gr.Row(visible=False, elem_id="tools") as self.tools:
            self.view = gr.Radio([], label="Show", elem_id="view", scale=3, min_width=260)
            self.opacity = gr.Slider(0, 100, value=60, step=1, label="Opacity, %", elem_id="opacity", min_width=180)
        self.stage = gr.HTML(html.empty_stage(), elem_id="stage", padding=False)
        self.legend = gr.HTML(elem_id="legend", padding=False)
        with gr.Column(visible=False) as self.details:
            self.table = gr.HTML(elem_id="table", padding=False)
            with gr.Row():
                self.png = gr.DownloadButton("PNG mask", elem_id="png", min_width=120)
                self.geotiff = gr.DownloadButton("GeoTIFF mask", elem_id="geotiff", min_width=120)

    def _connect(self) -> None:
        shown = [self.stage, self.legend, self.table, self.png, self.geotiff, self.message]
        everything = [*shown, self.session, self.tools, self.view, self.details, self.bands, self.facts, self.button]
        # One image at a time is segmented; looking at files and maps never waits for that.
        light = dict(concurrency_limit=8, concurrency_id="light", show_progress="hidden", api_visibility="private")
        heavy = dict(concurrency_limit=1, concurrency_id="model", show_progress="hidden", api_visibility="private")
        inputs = [self.upload, self.model, self.bands, self.session]
        running = self.button.click(self.segment, inputs, everything, trigger_mode="once", **heavy)
        # Another image ends what runs: its map would appear under the new one.
        self.upload.change(self.look_at, [self.upload, self.session], everything, cancels=running, **light)
        self.view.input(self.show, [self.session, self.view], shown, trigger_mode="always_last", **light)
        self.opacity.change(None, self.opacity, None, js=SET_OPACITY, api_visibility="private")  # in the browser alone

    def look_at(self, path: str | None, old: Result | None) -> dict[Any, Any]:
        """Show an uploaded image before any model sees it."""
        _forget(old)
        self._forget_abandoned()
        blank = {
            self.session: None,
            self.tools: gr.update(visible=False),
            self.details: gr.update(visible=False),
            self.bands: gr.update(value="", visible=False),
            self.stage: html.empty_stage(),
            self.legend: "",
            self.facts: "",
            self.message: "",
            self.button: gr.update(interactive=True),
        }
        if path is None:
            return blank
        try:
            scene = self._header(path)
            picture = _photo_uri(scene)
        except UploadError as error:
            return blank | {self.message: html.notice(str(error), "error")}
        return blank | {
            self.stage: html.stage(picture, {"": ""}, (scene.height, scene.width)),
            self.bands: gr.update(value="", visible=len(scene.every_band) > 3),
            self.facts: html.facts(scene),
        }

    def segment(
        self, path: str | None, model_id: str | None, bands: str, old: Result | None
    ) -> Iterator[dict[Any, Any]]:
        """Run a model over the uploaded image."""
        yield {
            self.message: html.notice("Segmenting. Without a GPU, large images take minutes.", "busy"),
            self.button: gr.update(interactive=False),
        }
        answer: dict[Any, Any]
        started = time.monotonic()
        try:
            result = self._result(path, (model_id or "").strip(), bands)
        except BandsError as error:
            answer = {self.message: html.notice(str(error), "error"), self.bands: gr.update(visible=True)}
        except (UploadError, ModelError) as error:
            answer = {self.message: html.notice(str(error), "error")}
        except Exception:  # out of memory, or a fault in the model's own code: the page must stay usable
            logger.exception("%s failed", model_id)
            failed = "The model failed on this image. Try a smaller one, or another model."
            answer = {self.message: html.notice(failed, "error")}
        else:
            _forget(old)
            first, seconds = result.views[0], time.monotonic() - started
            several = len(result.views) > 1
            answer = self.show(result, first) | {
                self.session: result,
                self.message: html.notice(f"{result.scene.megapixels:.2f} megapixels in {seconds:.1f} s."),
                self.tools: gr.update(visible=True),
                self.view: gr.update(choices=result.views, value=first, visible=several),
                self.details: gr.update(visible=True),
            }
        yield answer | {self.button: gr.update(interactive=True)}

    def show(self, result: Result | None, view: str) -> dict[Any, Any]:
        """Another view of the same result."""
        if result is None or view not in result.views:
            return {self.message: html.notice("This page was left alone for long: press Segment again.", "error")}
        shown = result.show(view)
        return {
            self.stage: shown.stage,
            self.legend: shown.legend,
            self.table: shown.table,
            self.png: gr.update(value=shown.png),
            self.geotiff: gr.update(value=shown.geotiff),
        }

    def _forget_abandoned(self) -> None:
        """Remove the files of runs that were given up: no session knows them."""
        for folder in self.folder.glob(f"{RESULT}*"):
            if time.time() - folder.stat().st_mtime > SESSION_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def _header(self, path: str) -> Scene:
        limits = dict(max_megabytes=self.settings.max_megabytes, max_megapixels=self.settings.max_megapixels)
        return scene_file.read_header(path, **limits)

    def _result(self, path: str | None, model_id: str, bands: str) -> Result:
        if path is None:
            raise UploadError("There is no image yet: drop a PNG, JPEG or GeoTIFF.")
        scene = self._header(path)
        self.settings.check_model(model_id)
        segmenter = self.segmenters.get(model_id)
        numbers = scene_file.choose_bands(scene, segmenter.num_bands, bands, segmenter.bands)
        with self.one_at_a_time:
            maps = segmenter.segment(scene_file.read_scene(scene, numbers))
        return Result(
            scene=scene,
            photo_uri=_photo_uri(scene),
            maps=maps,
            classes=segmenter.classes,
            model=segmenter.name,
            folder=self.folder / f"{RESULT}{uuid4().hex}",  # nobody else can guess it
        )


def _photo_uri(scene: Scene) -> str:
    return html.picture_uri(scene_file.photo(scene))


def _forget(result: Result | None) -> None:
    if result is not None:
        result.remove_files()


def _theme() -> gr.Theme:
    """Fonts of the user's system, so that nothing is fetched from elsewhere; labels as plain words."""
    plain = {
        "block_label_border_width": "0px",
        "block_label_border_width_dark": "0px",
        "block_label_shadow": "none",
    } | {
        f"block_{part}": value
        for kind in ("title", "label")
        for part, value in {
            f"{kind}_background_fill": "transparent",
            f"{kind}_background_fill_dark": "transparent",
            f"{kind}_text_color": "*body_text_color",
            f"{kind}_text_color_dark": "*body_text_color",
        }.items()
    }
    return gr.themes.Soft(primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(**plain)


def main() -> None:
    """Serve the page until it is interrupted."""
    settings = Settings.from_environment(os.environ)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it, the folder is removed
    with tempfile.TemporaryDirectory(prefix="co2s_space_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads go there, too
        page = Page(settings, Path(folder))
        page.blocks.queue(max_size=MAX_WAITING, api_open=False)
        page.blocks.launch(
            max_file_size=f"{round(settings.max_megabytes * 1000)}kb",
            state_session_capacity=MAX_SESSIONS,
            theme=_theme(),
            css_paths=HERE / "style.css",
            footer_links=["gradio"],
            run_history=False,
            ssr_mode=False,
        )


if __name__ == "__main__":
    main()
