"""The page in a real browser, as a user meets it. Screenshots of what failed go to pytest's temporary folder.

    pip install -e ".[space,test]" && pytest -m browser

It needs a Chromium: the one that the system knows, or playwright's (`playwright install chromium`).
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from .conftest import HOSTILE

pytestmark = [pytest.mark.slow, pytest.mark.browser]

SPACE = Path(__file__).parents[2] / "model_cards" / "space"
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def address(space_model, tmp_path_factory):
    """The page on a free port of this machine, without the package on its path and without a network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("app")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_"))} | {
        "CO2S_MODEL": str(space_model),
        "CO2S_MAX_MEGAPIXELS": "0.5",
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(folder),
    }
    with (folder / "log").open("w") as log:
        app = subprocess.Popen([sys.executable, "app.py"], cwd=SPACE, env=environment, stdout=log, stderr=log)
    try:
        _wait_for(port, app, folder / "log")
        yield f"http://127.0.0.1:{port}/"
    finally:
        app.terminate()
        app.wait(timeout=30)
    assert list(folder.glob("co2s_space_*")) == []  # images and masks are gone with the page


def _wait_for(port, app, log):
    for _ in range(600):
        if app.poll() is not None:
            break
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"The page did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = {"args": ["--no-sandbox"]} if os.name == "posix" and os.geteuid() == 0 else {}
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), **options)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address, tmp_path):
    """A fresh session; afterwards nothing may have gone wrong or left this machine."""
    yield from _session(browser, address, tmp_path / "page.png")


@pytest.fixture
def other_page(browser, address, tmp_path):
    yield from _session(browser, address, tmp_path / "other_page.png")


def _session(browser, address, picture):
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda one: one.url.startswith((address, "data:", "blob:")) or wrong.append(one.url))
    page.goto(address)
    page.wait_for_selector("#segment")
    yield page
    page.screenshot(path=picture, full_page=True)
    hacked = page.evaluate("window.hacked")
    context.close()
    assert wrong == [] and hacked is None


def upload(page, path):
    clear = page.locator('#upload button[aria-label="Clear"]')
    if clear.count():
        clear.first.click()
        page.wait_for_selector("#stage .empty")
    page.locator("#upload input[type=file]").set_input_files(path)


def segment(page):
    page.wait_for_selector("#stage .stage")
    page.click("#segment")
    page.wait_for_selector("#message .info")


def layer(page):
    """Address of the picture that lies over the image."""
    return page.locator("#stage .layer").first.get_attribute("src")


def choose(page, view, sign):
    page.get_by_label(view, exact=True).click()
    page.wait_for_selector(sign)


def take(page, button, folder):
    with page.expect_download() as started:
        page.click(button)
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path


def test_a_geotiff_becomes_a_map_and_a_mask_in_its_place(page, geotiff, pixels, tmp_path):
    image = geotiff(pixels, photometric="RGB")
    upload(page, image)
    page.wait_for_selector("#facts >> text=EPSG:32632")
    segment(page)
    table = page.locator("#table").inner_text()
    assert "Hectares" in table and HOSTILE in table  # as words, not as a picture
    fused = layer(page)

    page.get_by_label("CLIP", exact=True).click()
    page.wait_for_selector("#table >> text=CLIP prediction.")
    assert layer(page) != fused
    (tmp_path / "clip").mkdir()
    png, mask = (take(page, button, tmp_path / "clip") for button in ("#png", "#geotiff"))
    assert (png.name, mask.name) == ("scene_clip_mask.png", "scene_clip_mask.tif")
    with rasterio.open(mask) as file, rasterio.open(image) as original:
        assert (file.crs, file.transform, file.shape) == (original.crs, original.transform, original.shape)
        assert file.tags()["CLASS_2"] == HOSTILE and file.tags()["PREDICTION"] == "CLIP"
        with Image.open(png) as picture:
            assert np.array_equal(np.array(picture), file.read(1))
        pixels_of_road = int((file.read(1) == 0).sum())
    assert f"{pixels_of_road:,}" in page.locator("#table tr", has_text="road").inner_text()


def test_opacity_changes_in_the_browser_alone(page, geotiff, pixels):
    upload(page, geotiff(pixels))
    segment(page)
    asked = []
    page.on("request", lambda one: asked.append(one.url))
    page.locator("#opacity input[type=number]").fill("25")
    page.locator("#opacity input[type=number]").press("Tab")
    page.wait_for_function("getComputedStyle(document.querySelector('#stage .layer')).opacity === '0.25'")
    assert [url for url in asked if "queue" in url or "run" in url] == []


def test_two_students_are_compared(page, geotiff, pixels):
    upload(page, geotiff(pixels))
    segment(page)
    choose(page, "Side by side", "#stage .panels-2")
    assert page.locator("#stage figcaption").all_inner_texts() == ["CLIP", "DINOv3"]
    first, second = (one.get_attribute("src") for one in page.locator("#stage .layer").all())
    assert first != second
    choose(page, "Disagreement", "#legend >> text=CLIP and DINOv3 differ")
    assert page.locator("#stage .layer").count() == 1 and layer(page) not in (first, second)


def test_bands_are_asked_for_where_the_file_does_not_say(page, geotiff, pixels):
    four = np.dstack([pixels, pixels[:, :, :1]])
    upload(page, geotiff(four, photometric="MINISBLACK"))
    page.wait_for_selector("#stage .stage")
    page.click("#segment")
    page.wait_for_selector("#message .error >> text=has 4 bands and the model takes 3 (red, green, blue)")
    page.locator("#bands textarea, #bands input").fill("1, 2, 3")
    segment(page)
    assert layer(page).startswith("data:image/png")


def test_wrong_files_and_names_get_a_sentence(page, tmp_path):
    wrong = tmp_path / "<img src=x onerror=window.hacked=1>.png"
    wrong.write_text("not an image")
    upload(page, wrong)
    page.wait_for_selector("#message .error >> text=is neither PNG, JPEG nor TIFF")
    Image.new("RGB", (800, 700)).save(tmp_path / "large.png")
    upload(page, tmp_path / "large.png")
    page.wait_for_selector("#message .error >> text=this page takes up to 0.5 megapixels")
    page.click("#segment")
    page.wait_for_selector("#message .error >> text=this page takes up to 0.5 megapixels")
    page.locator("#model input").fill("<b>no</b>/model")
    page.locator("#model input").press("Enter")
    Image.new("RGB", (80, 70)).save(tmp_path / "small.png")
    upload(page, tmp_path / "small.png")
    page.wait_for_selector("#stage .stage")
    page.click("#segment")
    page.wait_for_selector("#message .error >> text=<b>no</b>/model cannot be found")


def test_users_do_not_see_each_other(page, other_page, geotiff, pixels):
    upload(page, geotiff(pixels))
    segment(page)
    assert other_page.locator("#stage .empty").is_visible() and not other_page.locator("#table").is_visible()
    upload(other_page, geotiff(pixels // 2, "other.tif"))
    segment(other_page)
    choose(page, "DINOv3", "#table >> text=DINOv3 prediction.")
    assert "other.tif" not in page.content() and "scene.tif" not in other_page.content()


def test_another_image_ends_what_runs(page, geotiff, pixels, tmp_path):
    Image.fromarray(pixels.repeat(5, axis=0).repeat(5, axis=1)[:700, :700]).save(tmp_path / "first.png")
    upload(page, tmp_path / "first.png")
    page.wait_for_selector("#stage .stage")
    page.click("#segment")
    page.wait_for_selector("#message .busy")
    upload(page, geotiff(pixels))
    page.wait_for_selector("#facts >> text=scene.tif")
    page.wait_for_timeout(5000)  # longer than the first image takes
    assert page.locator("#stage .layer").count() == 0 and page.locator("#stage .stage").count() == 1
    segment(page)
    assert "scene_fused" in take(page, "#png", tmp_path).name
