"""The report in a real browser: headless Chromium, Debian's, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from analysis.report import write as report
from tests.factories import environment, failed, ok, worker, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium on the PATH; on Debian: apt-get install chromium",
)
LONG = "Traceback\n" + "\n".join(f"  line {n} " + "x" * 300 for n in range(40))
PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with figures, a comparison, a failure with long lines, a noisy trial."""
    folder = tmp_path_factory.mktemp("browser")
    old = {"environment": environment("torch-2.2", "2.2.2"), "worker": worker("2.2.2")}
    crashed = failed(loss="local").model_copy(deep=True)
    crashed.errors[0].traceback = LONG
    rounds = range(3)
    write(
        folder,
        *(ok(round=r, step_s=0.5, loss="weighted_all_reduce", **old) for r in rounds),
        *(ok(round=r, step_s=0.4, noisy=["load 3.1 on 2 cores"]) for r in rounds),
        crashed,
    )
    return report(folder).path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a display."""
    with sync_playwright() as playwright:
        # In a container there is no user namespace for its sandbox; the page is our own.
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


def opened(browser: Browser, path: Path, width: int, scheme: str = "light") -> tuple[Page, list]:
    """The page in a window `width` pixels wide, and what it complained of."""
    page = browser.new_page(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page.set_default_timeout(20_000)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:")) or complaints.append(request.url)
        ),
    )
    page.goto(path.as_uri())
    return page, complaints


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_no_complaint_and_every_figure_has_width(browser: Browser, path: Path, width: int) -> None:
    page, complaints = opened(browser, path, width)
    widths = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.clientWidth])")
    assert len(widths) == 8
    assert all(natural > 100 and shown > 100 for natural, shown in widths)
    assert complaints == []
    page.close()


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_page_itself_never_scrolls_sideways(browser: Browser, path: Path, width: int) -> None:
    page, _ = opened(browser, path, width)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()


def test_light_and_dark_are_readable(browser: Browser, path: Path) -> None:
    contrasts = {}
    for scheme in ("light", "dark"):
        page, _ = opened(browser, path, DESKTOP, scheme)
        colours = page.evaluate(
            "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
        )
        card = page.evaluate("getComputedStyle(document.querySelector('figure')).backgroundColor")
        assert card == "rgb(255, 255, 255)"
        text, background = map(luminance, colours)
        contrasts[scheme] = (text + 0.05) / (background + 0.05)
        shot = page.screenshot(full_page=True)
        assert shot[:4] == b"\x89PNG" and len(shot) > 50_000
        page.close()
    assert contrasts["light"] < 1 / 7 and contrasts["dark"] > 7  # WCAG 2.1, level AAA


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`. Source: WCAG 2.1."""
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear))


def test_the_keyboard_reaches_the_contents_and_opens_a_failure(
    browser: Browser, path: Path
) -> None:
    page, _ = opened(browser, path, DESKTOP)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.tagName"))
        if reached[-1] == "SUMMARY":
            break
    assert reached.count("A") == 10 and reached.count("FIGURE") == 8
    assert page.locator("pre").first.is_hidden()
    page.keyboard.press("Enter")
    assert page.locator("pre").first.is_visible()
    page.close()


def test_it_prints(browser: Browser, path: Path) -> None:
    page, _ = opened(browser, path, DESKTOP)
    paper = page.pdf(format="A4")
    assert paper[:5] == b"%PDF-" and len(paper) > 50_000
    page.close()
