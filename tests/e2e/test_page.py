"""The page, in a real browser: a picture goes in, an answer, a heat map and feedback come out.

Whatever a test does, the page asks no other host, and the browser has nothing to complain of but what was provoked.
"""

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imago.config import MonitoringConfig
from imago.monitoring.drift import compare
from imago.monitoring.prediction_store import PredictionStore
from imago.serving import answers
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
LIGHT, DARK = "light", "dark"
LOOKS = pytest.mark.parametrize(
    ("scheme", "width"), [(LIGHT, 1280), (DARK, 1280), (LIGHT, 360), (DARK, 360)], ids=lambda value: str(value)
)
AA = 4.5  # contrast of text with what is behind it

NAMELESS = """() => [...document.querySelectorAll("a, button, input, summary, select, textarea, [tabindex='0']")]
    .filter((one) => one.checkVisibility())
    .filter((one) => !((one.labels?.[0] ?? one).innerText ?? "").trim())
    .map((one) => one.outerHTML)"""

FAINT = """(least) => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = numbers(colour).map((one) => one / 255)
            .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (one) => {
        const colour = getComputedStyle(one).backgroundColor;
        return numbers(colour)[3] === 0 ? behind(one.parentElement) : colour;
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const one = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !one.checkVisibility()) continue;
        const [high, low] = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => b - a);
        const contrast = (high + 0.05) / (low + 0.05);
        if (contrast < least) found.push([walker.currentNode.data, contrast]);
    }
    return found;
}"""

GIVE = """([event, pictures]) => {
    const data = new DataTransfer();
    for (const [name, bytes] of pictures) {
        data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
    }
    const made = event === "drop"
        ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
    document.body.dispatchEvent(made);
}"""


@dataclass
class Site:
    url: str
    store: PredictionStore
    shelf: Path


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Start an endpoint of a model of colours, described and set up as the test says."""
    with ExitStack() as stack:

        def start(package: dict[str, Any] | None = None, tested: answers.Tested | None = None, **settings: Any) -> Site:
            store, shelf = PredictionStore(tmp_path / "predictions.sqlite"), tmp_path / "shelf"
            runtime = Runtime(make_package(tmp_path / "package", **(package or {})))
            settings = {"predictions": store.path, **settings}
            url = stack.enter_context(listening(runtime, ServingSettings(**settings), version="12", tested=tested))
            return Site(url, store, shelf)

        yield start


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(f"no Chromium is found: none of {', '.join(NAMES)} is on the PATH, and IMAGO_CHROMIUM is not set")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; its `provoked` are the complaints of the browser that a test brings about on purpose."""
    pages = []

    def visit(url: str, *, scheme: str = LIGHT, width: int = 1280, **options: Any) -> Any:
        context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, **options)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.complaints, page.asked, page.provoked = [], [], set()
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
        page.on("filechooser", lambda _: None)  # the browser takes a while to begin to tell of them
        page.on("request", lambda request: page.asked.append(request.url))
        page.own = url
        pages.append(page)
        page.goto(f"{url}/ui")
        return page

    yield visit
    for page in pages:
        page.context.close()
    for page in pages:
        assert {said for said in page.complaints if not any(word in said for word in page.provoked)} == set()
        assert [url for url in page.asked if not url.startswith((f"{page.own}/", "blob:", "data:"))] == []


def moth(label: str = "green", *, name: str | None = None, **options: Any) -> dict[str, Any]:
    """A picture as a browser is given it."""
    content = picture_bytes(label, **{"size": (300, 200), "kind": "JPEG", **options})
    return {"name": name or f"{label}.jpg", "mimeType": "image/jpeg", "buffer": content}


def check_looks(page: Any) -> None:
    """Every control has a name that is seen, every text can be read, and nothing stands out at the side."""
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(FAINT, AA) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def paths(page: Any) -> list[str]:
    return [url.removeprefix(page.own) for url in page.asked]


@LOOKS
def test_a_picture_is_answered_explained_and_remembered(serve: Any, browse: Any, scheme: str, width: int) -> None:
    site = serve(tested=answers.Tested(accuracy=0.93, low=0.904, high=0.949, pictures=500))
    page = browse(site.url, scheme=scheme, width=width)
    expect(page.locator("#about")).to_have_text("Version 12 · mean_colour · 3 classes")
    expect(page.locator("#tested")).to_contain_text("Right on 93% of 500 test pictures")
    expect(page.locator("#tested")).to_contain_text("expect 90% to 95% (95% interval)")
    expect(page.locator("#knows")).to_contain_text("It knows 3 classes and nothing else.")
    check_looks(page)
    page.set_input_files("#file", moth())
    expect(page.locator("#verdict")).to_have_text("green")
    sure = "Quite sure: if it is one of its classes, about 91 of 100 such answers are right."
    expect(page.locator("#sure")).to_have_text(sure)
    expect(page.locator("#said")).to_have_text(f"green. {sure}")
    expect(page.locator("#said")).to_have_attribute("aria-live", "polite")
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#bars li")).to_have_count(3)
    expect(page.locator("#bars li").first).to_have_text(re.compile(r"green.*\d\d%"))
    expect(page.locator("#legend")).to_have_text(
        "Occlusion: the redder a place, the more is lost of green when it is hidden."
    )
    assert page.evaluate("document.getElementById('heat').naturalWidth") == 300
    check_looks(page)
    page.click("#wrong")
    expect(page.locator("#matches button")).to_have_text(["blue", "red"])
    page.fill("#truth", "BLU")
    expect(page.locator("#count")).to_have_text("1 of 3 classes match.")
    expect(page.locator("#matches button")).to_have_text(["blue"])
    check_looks(page)
    page.click("#matches button")
    expect(page.locator("#thanks")).to_have_text("Thank you. Noted: blue.")
    expect(page.locator("#thanks")).to_be_focused()
    expect(page.locator("#right-or-wrong")).to_be_hidden()
    (row,) = site.store.window().to_pylist()
    assert (row["label"], row["feedback"]) == ("green", "blue")
    check_looks(page)


def test_the_heat_map_can_be_switched_off_and_says_how_it_was_found(serve: Any, browse: Any) -> None:
    page = browse(serve({"maps": True}).url)
    page.set_input_files("#file", moth("red"))
    expect(page.locator("#legend")).to_have_text("Class activation: the redder a place, the more it speaks for red.")
    boxes = [page.locator(f"{name}").bounding_box() for name in ("#picture", "#heat")]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]  # beside, not over
    page.uncheck("#heat-on")
    expect(page.locator("#looked")).to_be_hidden()
    page.set_input_files("#file", moth("blue"))
    expect(page.locator("#verdict")).to_have_text("blue")
    assert paths(page).count("/explain") == 1
    page.check("#heat-on")
    expect(page.locator("#legend")).to_contain_text("speaks for blue.")
    assert paths(page).count("/explain") == 2


@LOOKS
def test_what_it_does_not_know_is_said_and_may_be_taught(serve: Any, browse: Any, scheme: str, width: int) -> None:
    site = serve({"sharpness": 0.05, "reject_threshold": 0.9})
    page = browse(site.url, scheme=scheme, width=width)
    expect(page.locator("#knows")).to_have_text(
        "It knows 3 classes and nothing else. Where it is less than 90% sure, it gives no answer."
    )
    page.set_input_files("#file", moth("red"))
    expect(page.locator("#verdict")).to_have_text("It does not know this one")
    expect(page.locator("#rejected")).to_contain_text(
        re.compile(r"^Why: the model is only \d\d% sure; it answers from 90% on\. Perhaps it shows none of its classes")
    )
    expect(page.locator("#sure")).to_have_text("Its best guess would be red.")
    expect(page.locator("#said")).to_contain_text("It does not know this one. Why: the model is only")
    expect(page.locator("#gallery button")).to_have_text("not known")
    expect(page.locator("#right")).to_be_hidden()
    page.click("#wrong")
    page.locator("#matches button", has_text="red").click()
    expect(page.locator("#thanks")).to_have_text("Thank you. Noted: red.")
    assert [row["feedback"] for row in site.store.window().to_pylist()] == ["red"]
    check_looks(page)


def test_all_of_it_can_be_done_from_the_keyboard(serve: Any, browse: Any) -> None:
    site = serve()
    page = browse(site.url)
    expect(page.locator("#model")).to_be_visible()

    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                """() => {
                    const one = document.activeElement, style = getComputedStyle(one);
                    return [one.id, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
                }"""
            )
            if focused[0] != "" or page.evaluate("document.activeElement !== document.body"):
                assert focused[1], f"no focus is seen at {focused[0]}"
            if focused[0] == name:
                return
        raise AssertionError(f"{name} is not reached")

    tab_to("invitation")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    assert chooser.value.is_multiple()
    chooser.value.set_files(moth("green"))
    expect(page.locator("#verdict")).to_have_text("green")
    tab_to("heat-on")
    page.keyboard.press("Space")
    expect(page.locator("#heat-on")).not_to_be_checked()
    tab_to("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#truth")).to_be_focused()
    page.keyboard.type("re")
    page.keyboard.press("Enter")
    expect(page.locator("#thanks")).to_have_text("")  # green, too, matches
    page.keyboard.type("d")
    page.keyboard.press("Enter")
    expect(page.locator("#thanks")).to_have_text("Thank you. Noted: red.")
    tab_to("clear")
    page.keyboard.press("Enter")
    expect(page.locator("#recent")).to_be_hidden()
    expect(page.locator("#another")).to_be_focused()
    assert [row["feedback"] for row in site.store.window().to_pylist()] == ["red"]


def test_what_moves_stands_still_for_who_wants_that(serve: Any, browse: Any) -> None:
    url = serve().url
    for motion, seconds in (("no-preference", "0.25s"), ("reduce", "0s")):
        page = browse(url, reduced_motion=motion)
        page.set_input_files("#file", moth())
        expect(page.locator("#verdict")).to_have_text("green")
        expect(page.locator(".fill").first).to_have_css("transition-duration", seconds)
        assert page.evaluate("document.getAnimations().length") <= (0 if motion == "reduce" else 3)


def test_a_phone_may_take_the_picture(serve: Any, browse: Any) -> None:
    url = serve().url
    phone = browse(url, width=390, has_touch=True, is_mobile=True)
    with phone.expect_file_chooser() as chooser:
        phone.tap("#take")
    assert not chooser.value.is_multiple()
    expect(phone.locator("#camera")).to_have_attribute("capture", "environment")
    chooser.value.set_files(moth())
    expect(phone.locator("#verdict")).to_have_text("green")
    check_looks(phone)
    expect(browse(url).locator("#take")).to_be_hidden()


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_may_be_dropped_and_pasted(serve: Any, browse: Any, event: str) -> None:
    page = browse(serve().url)
    page.evaluate(GIVE, [event, [["moth.jpg", list(moth()["buffer"])]]])
    expect(page.locator("#file-name")).to_contain_text("moth.jpg · ")
    expect(page.locator("#verdict")).to_have_text("green")
    assert paths(page).count("/predict") == 1


def test_several_pictures_are_answered_at_once_and_one_that_is_none_spoils_no_other(serve: Any, browse: Any) -> None:
    page = browse(serve().url)
    pictures = [[f"{label}.jpg", list(moth(label)["buffer"])] for label in ("red", "green", "blue")]
    page.evaluate(GIVE, ["drop", [*pictures, ["letter.jpg", list(b"Dear moth")]]])
    expect(page.locator("#verdict")).to_have_text("red")
    expect(page.locator("#several")).to_have_text(
        "3 of 4 pictures are answered; the others stand below. letter.jpg: The picture cannot be used: it is not one "
        "of JPEG, PNG, WEBP, GIF, BMP, TIFF. Choose another picture."
    )
    expect(page.locator("#gallery button")).to_have_text([re.compile(label) for label in ("red", "green", "blue")])
    assert [path for path in paths(page) if path.startswith("/predict")] == ["/predict_batch"]
    page.locator("#gallery button").nth(2).click()
    expect(page.locator("#verdict")).to_have_text("blue")
    expect(page.locator("#legend")).to_contain_text("is lost of blue")
    expect(page.locator("#gallery button").nth(2)).to_be_focused()
    expect(page.locator("#gallery [aria-current=true]")).to_have_text(re.compile("blue"))


def test_a_browser_remembers_what_it_asked_until_told_to_forget(serve: Any, browse: Any) -> None:
    page = browse(serve().url)
    for label in ("red", "green"):
        page.set_input_files("#file", moth(label))
        expect(page.locator("#verdict")).to_have_text(label)
    page.click("#right")
    expect(page.locator("#thanks")).to_have_text("Thank you. Noted: green.")
    page.reload()
    expect(page.locator("#about")).not_to_be_empty()
    expect(page.locator("#gallery button")).to_have_text([re.compile("green"), re.compile("red")])
    page.locator("#gallery button").first.click()
    expect(page.locator("#verdict")).to_have_text("green")
    expect(page.locator("#thanks")).to_have_text("Thank you. Noted: green.")
    expect(page.locator("#note")).to_contain_text("Only this small copy is kept")
    expect(page.locator("#looked")).to_be_hidden()
    check_looks(page)
    page.set_input_files("#file", [moth(seed=seed) for seed in range(30)])
    expect(page.locator("#several")).to_contain_text("24 of 24 pictures are answered")
    expect(page.locator("#several")).to_contain_text("Only 24 of 30 were taken.")
    expect(page.locator("#gallery button")).to_have_count(24)
    assert page.evaluate("localStorage['imago-recent'].length") < 24 * 8_000
    assert page.evaluate("JSON.parse(localStorage['imago-recent']).length") == 24
    page.click("#clear")
    expect(page.locator("#recent")).to_be_hidden()
    page.reload()
    expect(page.locator("#about")).not_to_be_empty()
    expect(page.locator("#recent")).to_be_hidden()


@pytest.mark.parametrize(
    "spoil",
    [
        "for (let size = 5_000_000; size >= 1; size = Math.floor(size / 2)) "
        "try { while (true) localStorage.setItem(Math.random(), 'x'.repeat(size)); } catch {}",
        "for (const name of ['localStorage', 'sessionStorage']) "
        "Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } })",
        "localStorage.setItem('imago-recent', '[{\"answer\": 3}')",
        "localStorage.setItem('imago-recent', '[{\"answer\": 3}, null]')",
    ],
    ids=["full", "forbidden", "broken", "strange"],
)
def test_a_storage_that_does_not_store_costs_only_the_memory(serve: Any, browse: Any, spoil: str) -> None:
    page = browse(serve().url)
    page.add_init_script(spoil)
    page.reload()
    for label in ("red", "green"):
        page.set_input_files("#file", moth(label))
        expect(page.locator("#verdict")).to_have_text(label)
    expect(page.locator("#gallery button")).to_have_text([re.compile("green"), re.compile("red")])


def test_a_photograph_that_is_too_large_is_scaled_down_here(serve: Any, browse: Any) -> None:
    site = serve(max_upload_bytes=1_500_000)
    rng = np.random.default_rng(7)
    noise = Image.fromarray(rng.integers(0, 90, size=(3000, 4000), dtype=np.uint8))
    photograph = io.BytesIO()
    Image.merge("RGB", (noise, noise.point(lambda value: value + 130), noise)).save(photograph, "JPEG", quality=90)
    page = browse(site.url)
    page.set_input_files("#file", moth() | {"buffer": photograph.getvalue()})
    expect(page.locator("#verdict")).to_have_text("green")
    expect(page.locator("#note")).to_have_text(
        re.compile(r"Scaled down here before it was sent, from 4000 × 3000 \(\d\.\d MB\) to 1365 × 1024 \(.* [kM]B\)\.")
    )
    until(lambda: site.store.count() == 1, 10, "the prediction is kept")
    (row,) = site.store.window().to_pylist()
    assert (row["width"], row["height"]) == (1365, 1024)
    page.set_input_files("#file", moth())
    expect(page.locator("#note")).to_have_text("")


TOO_MANY = '{"error": {"code": "overloaded", "message": "Too many requests are waiting.", "request_id": "1"}}'
STARTING = '{"error": {"code": "not_ready", "message": "The model is not loaded.", "request_id": "1"}}'


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 503, "headers": {"Retry-After": "4"}, "body": TOO_MANY},
         "The endpoint has too much to do just now. Try again in 4 seconds."),
        ({"status": 503, "headers": {"Retry-After": "2"}, "body": STARTING},
         "The endpoint is only just starting. Try again in 2 seconds."),
        ({"status": 429, "headers": {"Retry-After": "1"}, "body": TOO_MANY},
         "That was too often for this endpoint. Try again in a second."),
        ({"status": 500, "body": "<html>"}, "The endpoint failed (500), and not by your doing. Try again."),
        ({"status": 502, "body": ""}, "The endpoint failed (502), and not by your doing. Try again."),
        (None, "The endpoint cannot be reached. Look whether you are online, then try again."),
    ],
    ids=["busy", "starting", "too often", "broken", "gateway", "gone"],
)  # fmt: skip
def test_what_passes_is_said_in_a_line_and_asked_again(
    serve: Any, browse: Any, answer: dict[str, Any] | None, words: str
) -> None:
    page = browse(serve().url)
    page.provoked = {"Failed to load resource"}
    page.route("**/predict", lambda route: route.fulfill(**answer) if answer else route.abort())
    page.set_input_files("#file", moth())
    expect(page.locator("#error")).to_have_text(words)
    expect(page.locator("#error")).to_have_attribute("role", "alert")
    check_looks(page)
    page.unroute("**/predict")
    page.click("#again")
    expect(page.locator("#another")).to_be_focused()
    expect(page.locator("#verdict")).to_have_text("green")
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#again")).to_be_hidden()


def test_what_is_no_picture_is_said_and_the_next_is_answered(serve: Any, browse: Any) -> None:
    page = browse(serve(max_upload_bytes=50_000).url)
    page.provoked = {"status of 413", "status of 415", "status of 422"}
    broken = moth()["buffer"][:3000]
    for content, words in (
        (b"Dear moth", "it is not one of JPEG, PNG, WEBP, GIF, BMP, TIFF. Choose another picture."),
        (broken, "Choose another picture."),
        (b"\xff\xd8\xff" + bytes(60_000), "A picture may have at most 50,000 bytes. Choose a smaller one."),
    ):
        page.set_input_files("#file", moth() | {"buffer": content})
        expect(page.locator("#error")).to_contain_text(words)
        expect(page.locator("#again")).to_be_hidden()
        check_looks(page)
        page.set_input_files("#file", moth())
        expect(page.locator("#verdict")).to_have_text("green")
        expect(page.locator("#error")).to_be_hidden()
        expect(page.locator("#picture")).to_be_visible()


def test_a_key_is_asked_for_and_used(serve: Any, browse: Any) -> None:
    site = serve(api_key="open sesame", shelf=Path("anywhere"))
    page = browse(site.url)
    page.provoked = {"status of 401"}
    expect(page.locator("#key")).to_be_focused()
    check_looks(page)
    page.set_input_files("#file", moth())
    page.fill("#key", "sésame, ouvre-toi")  # which no header takes
    page.press("#key", "Enter")
    expect(page.locator("#key-error")).to_have_text("That key is not the right one.")
    page.fill("#key", "open sesame")
    page.press("#key", "Enter")
    expect(page.locator("#verdict")).to_have_text("green")
    expect(page.locator("#about")).to_contain_text("Version 12")
    expect(page.locator("#key-form")).to_be_hidden()
    expect(page.locator("#reports")).to_be_hidden()  # a link sends no key
    page.locator("#card summary").click()
    expect(page.locator("#card-text")).to_contain_text("A model of mean colours")


def test_a_key_that_a_gateway_takes_off_is_not_sent_for_ever(serve: Any, browse: Any) -> None:
    page = browse(serve(api_key="open sesame").url)
    page.provoked = {"status of 401"}
    page.route("**/info", lambda route: route.continue_(headers={**route.request.headers, "x-api-key": ""}))
    page.fill("#key", "open sesame")
    page.press("#key", "Enter")
    expect(page.locator("#key-error")).to_contain_text("a gateway on the way")
    assert sum(url.endswith("/info") for url in page.asked) == 2


def test_its_card_can_be_unfolded_and_its_reports_are_linked_where_there_are_any(serve: Any, browse: Any) -> None:
    page = browse(serve().url)
    page.locator("#card summary").click()
    expect(page.locator("#card-text p")).to_have_text("A model of mean colours, made for tests.")
    expect(page.locator("#card-text li")).to_have_text("classes: blue, green, red")
    page.locator("#classes-title").click()
    expect(page.locator("#classes li")).to_have_text(["blue", "green", "red"])
    expect(page.locator("#tested")).to_have_text(
        "Right on 100% of its validation pictures; what its test pictures said is not known here."
    )
    expect(page.locator("#reports")).to_be_hidden()
    check_looks(page)
    assert not any(path.startswith("/reports") for path in paths(page))


@pytest.mark.parametrize(("scheme", "width"), [(LIGHT, 1280), (DARK, 360)])
def test_reports_are_listed_and_drawn_in_their_sandbox(
    serve: Any, browse: Any, tmp_path: Path, scheme: str, width: int
) -> None:
    site = serve(shelf=tmp_path / "shelf")
    with Client(site.url) as client:
        client.predict_batch([picture_bytes("green", seed=seed) for seed in range(60)])
    until(lambda: site.store.count() == 60, 10, "the predictions are kept")
    asked = site.store.window().to_pandas()
    site.shelf.mkdir()
    (site.shelf / "drift.html").write_text(compare(asked, asked, MonitoringConfig()).page)
    (site.shelf / "evaluation.html").write_text("<style>h1 { color: rgb(1, 2, 3) }</style><h1>Right</h1>")
    (site.shelf / "history.json").write_text(
        '{"history": [{"time": "2026-05-04T09:30:00+00:00", "action": "deployed", "tag": "moths:12-0a", '
        '"reason": "First of its name: 93.0% of 500 test pictures were right."}]}'
    )
    page = browse(site.url, scheme=scheme, width=width)
    page.click("#reports a")
    expect(page.locator("h1")).to_have_text("Reports of moths version 12")
    expect(page.get_by_text("Model card: there is none yet")).to_be_visible()
    expect(page.locator("section:last-of-type li")).to_have_text(
        "2026-05-04 09:30 UTC deployed moths:12-0a First of its name: 93.0% of 500 test pictures were right.",
        use_inner_text=True,
    )
    check_looks(page)
    page.click("text=Evaluation")
    expect(page.locator("h1")).to_have_css("color", "rgb(1, 2, 3)")
    page.go_back()
    page.click("text=Drift")
    expect(page.locator("h1")).to_have_text("Stable")
    expect(page.locator(".js-plotly-plot, .plot-container, svg.main-svg").first).to_be_attached()
    assert page.evaluate("window.origin") == "null"
