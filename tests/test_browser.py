"""The page in a real browser (Debian's chromium, headless): nothing runs or breaks, it fits a phone, all text has contrast, keys reach all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_report import UNMEASURED, facts, gain, nearest, scores

from seedbed.report.facts import Facts
from seedbed.report.page import page
from seedbed.task import Task

LONG = "x" * 900 + " " + "word " * 900
SCRIPTS = "لا أستطيع تسجيل الدخول 注文した商品がまだ届きません सहायता चाहिए 🌱 "


def cases() -> dict[str, Facts]:
    """What a run can look like at its best and at its worst."""
    good, base = {**gain(), "difference": {"mean": 3.0, "low": 0.5, "high": 5.5}}, facts()
    bad = {**gain(), "difference": {"mean": -3.0, "low": -5.5, "high": -0.5}}
    labels = {f"a_rather_long_label_{i}": i for i in range(60)}
    long = [replace(c, text=LONG, provenance={"sources": [f"{'s' * 30}-{i}" for i in range(8)]}) for c in base.kept]
    near = {**base.closeup, "nearest": [{**e, "text": LONG} for e in base.closeup["nearest"]]}
    other = {**base.closeup, "nearest": [{**e, "text": SCRIPTS * 20} for e in base.closeup["nearest"]]}
    tested = [{**m, "p": 0.012} for m in base.scores["measures"]]
    return {
        "open": base,
        "better": facts(scores=scores(gain=good, measures=tested)),
        "worse": facts(scores=scores(gain=bad, measures=[])),
        "plain": facts(task=Task("plain", ("message",)), labels={}, training=None, scores=scores(gain=UNMEASURED), dropped=[]),
        "one row": facts(kept=base.kept[4:5], closeup={**nearest(4), "map": {"real": [], "synthetic": [], "share": None, "note": "one row"}}),
        "long": facts(name="n" * 100, kept=long, closeup=near, dropped=[{**d, "text": LONG, "reason": "r" * 90} for d in base.dropped]),
        "labels": facts(labels=labels, task=Task("classification", ("message",), "queue", tuple(labels))),
        "scripts": facts(name=SCRIPTS, closeup=other, kept=[replace(c, text=SCRIPTS * 40) for c in base.kept]),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A started chromium, or a skip."""
    tool, place = pytest.importorskip("playwright.sync_api"), shutil.which("chromium")
    if place is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with tool.sync_playwright() as started:
        found = started.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield found
        found.close()


class Tab:
    """One page, opened from a file as a reader opens it. complaints: script errors and all that the console says (policy violations too)."""

    def __init__(self, browser: Any, folder: Path, of: Facts, width: int = 1280, colours: str = "light") -> None:
        (folder / "report.html").write_text(page(of), encoding="utf-8")
        self.complaints: list[str] = []
        self.tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=colours)
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: request.url.startswith("file:") or self.complaints.append(request.url))
        self.tab.goto((folder / "report.html").as_uri())

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        self.tab.close()


TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll('body *')].filter(e =>
  e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('[role=region], svg')).map(e => e.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("name", cases())
def test_it_fits_a_phone_and_asks_for_nothing(name: str, browser: Any, tmp_path: Path) -> None:
    with Tab(browser, tmp_path, cases()[name], width=390) as opened:
        assert opened.tab.evaluate(TOO_WIDE) == []
        assert opened.tab.evaluate("document.documentElement.scrollWidth") == 390
        assert opened.complaints == []
        assert opened.tab.evaluate("document.scripts.length") == 0


def test_the_policy_stops_a_script(browser: Any, tmp_path: Path) -> None:
    """That the browser obeys, and that a violation would be seen."""
    with Tab(browser, tmp_path, facts()) as opened:
        opened.tab.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
        assert opened.tab.evaluate("window.ran === undefined")
        assert any("Content Security Policy" in text for text in opened.complaints)


CONTRAST = """() => {
  const rgb = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const mix = (top, under) => under.slice(0, 3).map((u, i) => top[3] * top[i] + (1 - top[3]) * u);
  const behind = e => { if (!e) return [255, 255, 255]; const own = rgb(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : mix(own, behind(e.parentElement)); };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || e.matches('style')) continue;
    const style = getComputedStyle(e), under = behind(e);
    const ink = mix(rgb(e.closest('svg') ? style.fill : style.color), under);
    const [low, high] = [light(ink), light(under)].sort((a, b) => a - b);
    const large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.66 && parseInt(style.fontWeight) >= 700;
    found.push([(high + 0.05) / (low + 0.05), large ? 3 : 4.5, texts.currentNode.data.slice(0, 40)]);
  }
  return found;
}"""


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("name", ["open", "better", "worse", "plain", "long"])
def test_all_text_has_the_contrast_of_wcag_aa(name: str, colours: str, browser: Any, tmp_path: Path) -> None:
    with Tab(browser, tmp_path, cases()[name], colours=colours) as opened:
        found = opened.tab.evaluate(CONTRAST)
        assert len(found) > 100
        assert [entry for entry in found if entry[0] < entry[1]] == []
        paper = opened.tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (colours == "light")


STOPS = """() => [...document.querySelectorAll('a, summary, [tabindex], [role=region]')].map(e => e.dataset.stop = String(Math.random()))"""
HERE = """() => { const e = document.activeElement, s = getComputedStyle(e);
  return [e.dataset.stop, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]; }"""
SCROLLS = """() => [...document.querySelectorAll('body *')].filter(e => !e.closest('svg')
  && (e.scrollWidth > e.clientWidth + 1 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)
  || e.scrollHeight > e.clientHeight + 1 && ['auto', 'scroll'].includes(getComputedStyle(e).overflowY)))
  .map(e => [e.tabIndex, e.getAttribute('role'), e.getAttribute('aria-label')])"""


@pytest.mark.parametrize("name", ["open", "long", "labels"])
def test_keys_reach_all_that_unfolds_or_scrolls(name: str, browser: Any, tmp_path: Path) -> None:
    with Tab(browser, tmp_path, cases()[name], width=390) as opened:
        tab = opened.tab
        boxes = tab.evaluate(SCROLLS)
        assert boxes and all(index == 0 and role == "region" and label for index, role, label in boxes)
        stops = tab.evaluate(STOPS)
        reached = []
        for _ in stops:
            tab.keyboard.press("Tab")
            stop, ringed = tab.evaluate(HERE)
            assert ringed, f"no ring is seen around {tab.evaluate('document.activeElement.outerHTML')[:80]}"
            reached.append(stop)
        assert reached == stops
        tab.keyboard.press("Tab")  # back to the start
        tab.evaluate("document.querySelector('.skip').focus()")
        assert tab.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
        tab.keyboard.press("Enter")
        tab.wait_for_url("**#main", wait_until="commit")  # raises where the link leads elsewhere; the address follows the key a moment later


def test_a_long_text_unfolds_by_key(browser: Any, tmp_path: Path) -> None:
    with Tab(browser, tmp_path, cases()["long"]) as opened:
        opened.tab.evaluate("document.querySelector('summary').focus()")
        opened.tab.keyboard.press("Enter")
        assert opened.tab.evaluate("document.querySelector('details').open")


@pytest.mark.slow
def test_paper_shows_the_whole_of_what_scrolls(browser: Any, tmp_path: Path) -> None:
    with Tab(browser, tmp_path, cases()["labels"], colours="dark") as opened:
        opened.tab.emulate_media(media="print")
        assert opened.tab.evaluate(SCROLLS) == []
        assert opened.tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
