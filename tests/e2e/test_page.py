"""The page, in a real browser: a picture goes in, an answer, a heat map and feedback come out."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imago.config import MonitoringConfig
from imago.monitoring.drift import compare
from imago.monitoring.prediction_store import PredictionStore
from imago.serving.client import Client
from imago.serving.runtime import Runtime
from imago.serving.settings import ServingSettings
from tests.endpoints import listening
from tests.packages import make_package, picture_bytes
from tests.waiting import until

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("IMAGO_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Site:
    url: str
    store: PredictionStore
    picture: Path
    shelf: Path


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    store = PredictionStore(tmp_path / "predictions.sqlite")
    shelf = tmp_path / "shelf"
    settings = ServingSettings(predictions=store.path, api_key=getattr(request, "param", None), shelf=shelf)
    runtime = Runtime(make_package(tmp_path / "package"))
    (tmp_path / "moth.jpg").write_bytes(picture_bytes("green", size=(300, 200), kind="JPEG"))
    with listening(runtime, settings, version="12") as url:
        yield Site(url, store, tmp_path / "moth.jpg", shelf)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(f"no Chromium is found: none of {', '.join(NAMES)} is on the PATH, and IMAGO_CHROMIUM is not set")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


LOOKS = pytest.mark.parametrize(
    "page", [("light", 1100), ("dark", 1100), ("light", 360)], ids=["light", "dark", "phone"], indirect=True
)


@pytest.fixture
def page(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    scheme, width = getattr(request, "param", ("light", 1100))
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 760})
    page = context.new_page()
    page.faults = []
    page.hosts = set()
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda asked: page.hosts.add(asked.url.split("/")[2] if "//" in asked.url else ""))
    yield page
    context.close()


@LOOKS
def test_a_picture_is_answered_explained_and_remembered(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/ui")
    expect(page.locator("#about")).to_have_text("Version 12 · mean_colour · 3 classes")
    page.set_input_files("#file", site.picture)
    expect(page.locator("#verdict")).to_have_text("green")
    expect(page.locator("#bars li")).to_have_count(3)
    expect(page.locator("#bars li").first).to_contain_text("green")
    page.click("#explain")
    expect(page.locator("#heat")).to_be_visible()
    assert page.evaluate("document.getElementById('heat').decode().then(() => true)")
    page.click("#explain")
    expect(page.locator("#heat")).to_be_hidden()
    page.fill("#truth", "blue")
    page.click("#tell")
    expect(page.locator("#thanks")).to_have_text("Noted: blue.")
    (row,) = site.store.window().to_pylist()
    assert (row["label"], row["feedback"]) == ("green", "blue")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.faults == []
    assert page.hosts <= {site.url.split("/")[2], ""}


def test_what_is_refused_is_said_and_the_next_picture_is_answered(site: Site, page: Any, tmp_path: Path) -> None:
    text = tmp_path / "letter.jpg"
    text.write_text("Dear moth, …")
    page.goto(f"{site.url}/ui")
    page.set_input_files("#file", text)
    expect(page.locator("#error")).to_contain_text("The picture cannot be used")
    expect(page.locator("#no-preview")).to_be_visible()
    expect(page.locator("#explain")).to_be_disabled()
    page.set_input_files("#file", site.picture)
    expect(page.locator("#verdict")).to_have_text("green")
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#picture")).to_be_visible()


@pytest.mark.parametrize("site", ["open sesame"], indirect=True)
def test_a_key_is_asked_for_and_used(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/ui")
    page.fill("#key", "open sesame")
    page.press("#key", "Enter")
    expect(page.locator("#about")).to_contain_text("Version 12")
    expect(page.locator("#key-form")).to_be_hidden()
    page.set_input_files("#file", site.picture)
    expect(page.locator("#verdict")).to_have_text("green")


def test_a_picture_may_be_dropped_and_pasted(site: Site, page: Any) -> None:
    page.goto(f"{site.url}/ui")
    expect(page.locator("#about")).not_to_be_empty()
    for event in ("drop", "paste"):
        page.evaluate(
            """([event, bytes]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], event + ".jpg", { type: "image/jpeg" }));
                const made = event === "drop"
                    ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
                    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
                document.body.dispatchEvent(made);
            }""",
            [event, list(site.picture.read_bytes())],
        )
        expect(page.locator("#file-name")).to_contain_text(f"{event}.jpg")
        expect(page.locator("#verdict")).to_have_text("green")


@LOOKS
def test_reports_are_listed_and_drawn_in_their_sandbox(site: Site, page: Any) -> None:
    with Client(site.url) as client:
        client.predict_batch([picture_bytes("green", seed=seed) for seed in range(60)])
    until(lambda: site.store.count() == 60, 10, "the predictions are kept")
    asked = site.store.window().to_pandas()
    site.shelf.mkdir()
    (site.shelf / "drift.html").write_text(compare(asked, asked, MonitoringConfig()).page)
    (site.shelf / "evaluation.html").write_text("<style>h1 { color: rgb(1, 2, 3) }</style><h1>Right</h1>")
    page.goto(f"{site.url}/reports")
    expect(page.locator("h1")).to_have_text("Reports of moths version 12")
    expect(page.get_by_text("Model card: there is none yet")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.click("text=Evaluation")
    expect(page.locator("h1")).to_have_css("color", "rgb(1, 2, 3)")
    page.go_back()
    page.click("text=Drift")
    expect(page.locator("h1")).to_have_text("Stable")
    expect(page.locator(".js-plotly-plot, .plot-container, svg.main-svg").first).to_be_attached()
    assert page.evaluate("window.origin") == "null"
    assert page.faults == []
    assert page.hosts <= {site.url.split("/")[2], ""}
