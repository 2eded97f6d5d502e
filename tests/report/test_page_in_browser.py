"""The HTML report in Chromium: on a phone, in the dark, on paper, and with what a key must not do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_retrieval_guard.report.document import write_report

from .browser import Browser
from .samples import EVIL, REPORTS, keep_source
from .screenshots import FOLDER, HEIGHT, PICTURES, WIDTH, take_pictures

PHONE, DESK = 320, 1000
EVERY_REPORT = pytest.mark.parametrize("name", REPORTS)
EVERY_WIDTH = pytest.mark.parametrize("width", [PHONE, DESK])
EVERY_SCHEME = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])

Show = Callable[..., Path]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Show:
    """`show(name, width=320, dark=True)` opens a report."""

    def show(name: str, change: Callable[[str], str] = str, **options: Any) -> Path:
        keep_source()
        path = tmp_path / "report.html"
        write_report(path, REPORTS[name])
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        browser.open(path, **options)
        return path

    return show


# What of the page reaches beyond its right edge.
BEYOND = """[...document.querySelectorAll('body *')]
    .filter(one => !one.closest('thead') && one.getBoundingClientRect().right > innerWidth + 0.5)
    .map(one => one.outerHTML.slice(0, 80))"""


@EVERY_WIDTH
@EVERY_REPORT
def test_nothing_is_wider_than_the_screen(browser: Browser, show: Show, name: str, width: int) -> None:
    show(name, width=width)
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(BEYOND) == []


@EVERY_REPORT
def test_nothing_is_hidden_behind_a_scroll_bar_of_its_own(browser: Browser, show: Show, name: str) -> None:
    show(name, width=PHONE)
    clipped = """[...document.querySelectorAll('body *')]
        .filter(one => getComputedStyle(one).overflowX !== 'visible' && one.scrollWidth > one.clientWidth + 1)
        .filter(one => !one.matches('thead')).map(one => one.outerHTML.slice(0, 80))"""
    assert browser.ask(clipped) == []


def test_a_phone_shows_a_key_as_a_block_with_labels(browser: Browser, show: Show) -> None:
    show("like a run", width=PHONE)
    label = "getComputedStyle(document.querySelector('.keys td'), '::before').content"
    assert browser.ask(label) == '"Logged"'
    assert browser.ask("document.querySelector('.keys svg').getBoundingClientRect().width") == 100
    assert browser.ask("document.querySelector('.legend').checkVisibility()") is True
    show("like a run", width=DESK)
    assert browser.ask(label) == "none"


def test_the_headers_of_the_ranks_stay_whole(browser: Browser, show: Show) -> None:
    show("like a run", width=PHONE)
    heights = browser.ask("[...document.querySelectorAll('.ranks thead th')].map(one => one.offsetHeight)")
    assert len(heights) == 8
    assert max(heights) < 40


# --- safety ---------------------------------------------------------------------------------------------------


def happened(browser: Browser) -> list[str]:
    """What a page that only stands there does not do."""
    wanted = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening", "Log.entryAdded")
    return [event["method"] for event in browser.events if event["method"] in wanted]


@EVERY_REPORT
def test_it_asks_the_network_for_nothing(browser: Browser, show: Show, name: str) -> None:
    path = show(name)
    browser.ask("1")
    requests = [event for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    assert [request["params"]["request"]["url"] for request in requests] == [path.absolute().as_uri()]
    assert happened(browser) == []


def test_no_string_of_the_user_becomes_markup(browser: Browser, show: Show) -> None:
    show("hard")
    assert browser.ask("document.title").startswith("RetrievalGuard: ")
    assert browser.ask("document.querySelectorAll('script, img, [onerror], iframe, object, link').length") == 0
    text = browser.ask("document.body.textContent")
    for evil in EVIL:
        assert text.count(evil) >= 5
    assert happened(browser) == []


@pytest.mark.parametrize(
    "hole",
    [
        "<script>document.title = 'broken'</script>",
        "<img src=x onerror=\"document.title = 'broken'\">",
        "<style>body { display: none }</style>",
    ],
)
def test_a_hole_in_the_escaping_would_still_run_nothing(browser: Browser, show: Show, hole: str) -> None:
    show("like a run", lambda page: page.replace("<main>", f"<main>{hole}"))
    assert browser.ask("document.querySelectorAll('main > script, main > img, main > style').length") == 1
    assert browser.ask("document.title").startswith("RetrievalGuard: ")
    assert browser.ask("getComputedStyle(document.body).display") == "block"
    assert "Log.entryAdded" in happened(browser)  # the policy's complaint


# --- looks ----------------------------------------------------------------------------------------------------


def test_200_keys_are_shown(browser: Browser, show: Show) -> None:
    show("many")
    assert browser.ask("document.querySelectorAll('article').length") == 39  # three rules at 13 lines
    assert browser.ask("Math.min(...[...document.querySelectorAll('article')].map(one => one.offsetHeight))") > 150
    assert browser.ask("document.querySelectorAll('.keys tbody tr').length") == 200
    dead = "[...document.querySelectorAll('a')].filter(one => !document.querySelector(one.hash)).length"
    assert browser.ask(dead) == 0


BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def test_the_page_is_dark_for_who_wants_it_dark(browser: Browser, show: Show) -> None:
    show("like a run")
    light = brightness(browser.ask(BACKGROUND))
    browser.emulate(dark=True)
    assert brightness(browser.ask(BACKGROUND)) < 0.1 < 0.9 < light


def brightness(color: str) -> float:
    """From 0 to 1, of "rgb(1, 2, 3)"."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Every colour of text, and of shapes that tell something, with the colour behind it and an example.
COLOURS = """(() => {
    const behind = one => {
        for (; one; one = one.parentElement) {
            const colour = getComputedStyle(one).backgroundColor;
            if (!colour.startsWith('rgba')) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const found = {};
    for (const one of document.querySelectorAll('body *')) {
        const style = getComputedStyle(one);
        const words = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (words) found[`text ${style.color} on ${behind(one)}`] = one.outerHTML.slice(0, 60);
        if (one.matches('polyline, circle'))
            found[`shape ${style[style.fill === 'none' ? 'stroke' : 'fill']} on ${behind(one)}`] =
                one.outerHTML.slice(0, 60);
    }
    return found;
})()"""


@EVERY_SCHEME
@EVERY_REPORT
def test_everything_can_be_told_from_what_is_behind_it(browser: Browser, show: Show, name: str, dark: bool) -> None:
    """WCAG 2.2, level AA: 4.5 for text, 3 for shapes."""
    show(name, dark=dark)
    contrasts = browser.ask(COLOURS)
    assert len(contrasts) >= 2 or name == "nothing"
    for pair, example in contrasts.items():
        kind, front, back = re.fullmatch(r"(text|shape) (.*) on (.*)", pair).groups()
        dim, bright = sorted((brightness(front), brightness(back)))
        contrast = (bright + 0.05) / (dim + 0.05)
        assert contrast >= (4.5 if kind == "text" else 3), f"{contrast:.2f}: {pair}: {example}"


# --- for who does not see it ----------------------------------------------------------------------------------


def seen_by_screen_readers(browser: Browser) -> list[tuple[str, str]]:
    """Role and name of everything in the accessibility tree."""
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")]


@EVERY_WIDTH
def test_tables_keep_their_headers_on_every_screen(browser: Browser, show: Show, width: int) -> None:
    show("like a run", width=width)
    tree = seen_by_screen_readers(browser)
    headers = {name for role, name in tree if role == "columnheader"}
    assert headers >= {
        "Key",
        "Logged",
        "One device",
        "Difference",
        "Over epochs",
        "Rank",
        "Samples",
        "Updates",
        "Queries",
    }
    rows = [name for role, name in tree if role == "rowheader"]
    assert len(rows) == 5 + 2 * 4
    assert any(name.startswith("val_recall@1") for name in rows)
    assert sum(role == "table" for role, _ in tree) == 3


@EVERY_REPORT
def test_charts_have_words(browser: Browser, show: Show, name: str) -> None:
    show(name)
    charts = [name for role, name in seen_by_screen_readers(browser) if role in ("image", "img", "SvgRoot")]
    assert len(charts) == browser.ask(
        "[...document.querySelectorAll('svg')].filter(one => one.checkVisibility()).length"
    )
    assert all(charts)


@EVERY_REPORT
def test_headings_go_down_one_step_at_a_time(browser: Browser, show: Show, name: str) -> None:
    show(name)
    levels = browser.ask("[...document.querySelectorAll('h1, h2, h3, h4')].map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_reason_unfolds(browser: Browser, show: Show) -> None:
    show("like a run")
    seen = "document.querySelector('article details p').checkVisibility()"
    assert browser.ask(seen) is False
    browser.ask("document.querySelector('summary').click()")
    assert browser.ask(seen) is True


# --- on paper -------------------------------------------------------------------------------------------------


@EVERY_SCHEME
def test_paper_is_white_and_reasons_are_unfolded(browser: Browser, show: Show, dark: bool) -> None:
    show("like a run", dark=dark)
    browser.emulate(dark=dark, media="print")
    backgrounds = browser.ask(
        "[...new Set([...document.querySelectorAll('body, body *')].map(one => getComputedStyle(one).backgroundColor))]"
    )
    assert all(color == "rgba(0, 0, 0, 0)" or brightness(color) == 1 for color in backgrounds)
    assert brightness(browser.ask("getComputedStyle(document.body).color")) < 0.1
    folded = "[...document.querySelectorAll('details p')].filter(one => one.offsetHeight === 0).length"
    assert browser.ask(folded) == 0
    browser.emulate()


def test_the_print_is_one_flow(browser: Browser, show: Show) -> None:
    show("many")
    pages = len(re.findall(rb"/Type\s*/Page\b", browser.pdf()))
    browser.emulate(media="print")
    taken_out = """[...document.querySelectorAll('body *')].filter(one => {
        const style = getComputedStyle(one);
        return ['fixed', 'absolute', 'sticky'].includes(style.position) || /auto|scroll/.test(style.overflow);
    }).length"""
    assert browser.ask(taken_out) == 0
    assert browser.ask("document.querySelector('article').offsetHeight") > 0
    browser.emulate()
    assert 8 <= pages < 40


def test_one_fault_with_20_keys_is_two_pages(browser: Browser, show: Show) -> None:
    show("one fault")
    assert len(re.findall(rb"/Type\s*/Page\b", browser.pdf())) <= 2


# --- pictures -------------------------------------------------------------------------------------------------


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG."""
    assert picture.startswith(b"\x89PNG")
    return int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")


def test_the_pictures_of_the_documentation_can_be_taken_anew(browser: Browser, tmp_path: Path) -> None:
    take_pictures(browser, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PICTURES)
    light, dark = ((tmp_path / name).read_bytes() for name in PICTURES)
    assert light != dark
    for name in PICTURES:
        for folder in (tmp_path, FOLDER):
            assert size_of((folder / name).read_bytes()) == (WIDTH, HEIGHT)
            assert (folder / name).stat().st_size < 200_000
        assert f"({name})" in (FOLDER / "report.md").read_text(encoding="utf-8")
