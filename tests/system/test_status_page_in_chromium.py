"""The status page in a real browser: accessibility, keyboard, refresh and content policy."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import Seen, browse, needs_chromium, needs_playwright
from simulation.moments import moments, showing

from syncd.admin import page

if TYPE_CHECKING:
    from conftest import Daemon

pytestmark = [needs_chromium, needs_playwright]

NAMES = [
    *("new", "healthy", "story", "found", "nothing", "shop", "skus", "lost"),
    *("sweeping", "quarantined", "silent", "failing", "unreadable"),
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
# A folder in which to leave pictures of it all, for whoever wants to look.
PICTURES = os.environ.get("SYNCD_PICTURES")
# Colours are the same at every width: each of both is seen, and not all that is possible.
LOOKS = [["phone", 360, 780, "light"], ["desk", 1280, 900, "dark"]]
if PICTURES:
    LOOKS += [["phone", 360, 780, "dark"], ["desk", 1280, 900, "light"]]

EXAMINE = """
const found = {};
for (const name of NAMES) {
  await page.goto(`${URL}/?q=${name}`);
  found[name] = [];
  for (const [device, width, height, colorScheme] of LOOKS) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    const spill = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    found[name].push({ look: `${device} ${colorScheme}`, spill, violations: await axe(page) });
    const path = `${PICTURES}/${name}-${device}-${colorScheme}.png`;
    if (PICTURES) await page.screenshot({ path, fullPage: true });
  }
}
return found;
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the page of each moment of a day."""
    pages = moments()
    assert [*pages, "unreadable"] == NAMES
    with showing(pages) as base:
        yield base


@pytest.fixture(scope="module")
def examined(url: str) -> Seen:
    """Have one browser look at every moment, on a phone and on a desk, light and dark."""
    output = {"URL": url, "NAMES": NAMES, "PICTURES": PICTURES, "LOOKS": LOOKS}
    script = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in output.items())
    return browse(url, script + EXAMINE)


@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_no_fault(examined: Seen, name: str) -> None:
    """And the page is not wider than the screen."""
    assert len(examined.found[name]) == len(LOOKS)
    for one in examined.found[name]:
        assert one["violations"] == [], one["look"]
        assert one["spill"] <= 0, one["look"]


def test_the_page_keeps_to_its_content_policy(url: str, examined: Seen) -> None:
    """It loads nothing from other hosts, and the console has no message."""
    # Of an answer of 503, where the mirror cannot be read, the browser tells itself.
    assert [error for error in examined.faults if "503" not in error] == []
    assert all(requested.startswith(f"{url}/") for requested in examined.asked)


def test_everything_is_reachable_with_the_keyboard(url: str) -> None:
    """The first Tab offers to skip the search; the focus is visible; Enter searches."""
    observed = browse(
        f"{url}/?q=quarantined",
        """
        const focused = () => page.evaluate(() => {
          const one = document.activeElement;
          const { outlineStyle, outlineWidth } = getComputedStyle(one);
          const { left, top, bottom } = one.getBoundingClientRect();
          const label = one.getAttribute("aria-label") ?? one.textContent.trim();
          const isShown = left >= 0 && bottom > 0 && top < innerHeight;
          return { label: label || one.id, outline: `${outlineStyle} ${outlineWidth}`, isShown };
        });
        await page.keyboard.press("Tab");
        const stops = [await focused()];
        await page.keyboard.press("Enter");
        const skippedTo = await page.evaluate(() => document.activeElement.id);
        await page.keyboard.press("Shift+Tab");
        stops.push(await focused());
        while (stops.length < 100) {
          await page.keyboard.press("Tab");
          const stop = await focused();
          if (stop.label === stops[0].label || stop.label === "live") break;
          if (await page.evaluate(() => document.activeElement === document.body)) break;
          stops.push(stop);
        }
        await page.focus("summary");
        await page.keyboard.press("Enter");
        const isOpen = await page.evaluate(() => document.querySelector("details").open);
        await page.fill("#q", "found");
        await page.keyboard.press("Enter");
        await page.waitForURL(/q=found/);
        return { stops, skippedTo, isOpen };
        """,
    )
    stops = observed.found["stops"]
    assert stops[0]["label"] == "To the status"
    assert stops[1]["label"] == "Find"
    assert observed.found["skippedTo"] == "live"
    assert observed.found["isOpen"]
    assert len(stops) > 25
    assert {"Table of sweeps", "Table of the latest changes", "Quarantined deliveries"} <= {
        stop["label"] for stop in stops
    }
    assert [stop for stop in stops if stop["outline"] != "solid 3px" or not stop["isShown"]] == []


def test_a_refresh_keeps_focus_scroll_and_selection(url: str) -> None:
    """And which details are open."""
    observed = browse(
        f"{url}/?q=healthy",
        """
        await page.locator("summary").first().click();
        const link = page.locator("[data-key=changes] a").nth(2);
        await link.focus();
        const known = await link.textContent();
        await page.evaluate(() => {
          window.scrollTo(0, 700);
          document.querySelector("[data-key=sweeps] .beside > .scroll").scrollLeft = 30;
          document.querySelector("[data-key=changes] tr[data-key]").isTheSame = true;
          getSelection().selectAllChildren(document.querySelector("[data-key=changes] .name"));
        });
        const state = () => page.evaluate(() => ({
          title: document.title,
          health: document.querySelector(".health strong").textContent,
          icon: document.querySelector("link[rel=icon]").getAttribute("href"),
          focused: document.activeElement.textContent,
          row: [...document.querySelectorAll("[data-key=changes] tr[data-key]")]
            .findIndex((row) => row.isTheSame),
          isOpen: document.querySelector("details").open,
          down: window.scrollY,
          right: document.querySelector("[data-key=sweeps] .beside > .scroll").scrollLeft,
          selected: getSelection().toString(),
          quarantined: document.querySelectorAll("[data-key=quarantined] tbody tr").length,
        }));
        const before = await state();
        await page.route(/q=healthy/, (route) =>
          route.continue({ url: route.request().url().replace("healthy", "sweeping") }));
        await page.waitForFunction(() => document.body.textContent.includes("at full rate"));
        const moved = await state();
        await page.unroute(/q=healthy/);
        await page.route(/q=healthy/, (route) =>
          route.continue({ url: route.request().url().replace("healthy", "silent") }));
        await page.waitForSelector("[data-key=quarantined]");
        const after = await state();
        await page.unroute(/q=healthy/);
        await page.waitForSelector(".health.ok");
        return { known, before, moved, after, again: await state() };
        """,
        viewport=PHONE,
    )
    before, moved, after = (
        observed.found["before"],
        observed.found["moved"],
        observed.found["after"],
    )
    assert (before["title"], before["row"], before["right"]) == ("ok · syncd", 0, 30)
    # One change has come on top; the link that had the focus has it still.
    assert moved["row"] == 1
    for name in ("isOpen", "focused", "selected", "right"):
        assert moved[name] == before[name], name
    assert before["focused"] == observed.found["known"]
    assert abs(moved["down"] - before["down"]) < 200
    # Now it has left the list, and the page has the focus.
    assert (after["health"], after["icon"]) == ("degraded", "degraded.svg")
    assert (after["title"], after["row"], after["quarantined"]) == ("degraded · syncd", -1, 3)
    assert after["focused"] not in ("", before["focused"])
    # Whole parts of the page that come and go do not touch the others.
    assert after["isOpen"]
    assert observed.found["again"]["isOpen"]
    assert observed.faults == []


def test_a_page_without_a_daemon_says_so(url: str) -> None:
    """It recovers by itself when the daemon answers again."""
    observed = browse(
        f"{url}/?q=healthy",
        """
        const health = () => page.locator(".health").innerText();
        const opacity = () => page.evaluate(() =>
          getComputedStyle(document.querySelector(".headline")).opacity);
        await page.route(/q=healthy/, (route) => route.abort());
        await page.waitForSelector(".health.stale");
        const gone = [await health(), await page.title(), await opacity()];
        await page.unroute(/q=healthy/);
        await page.waitForSelector(".health.ok");
        return { gone, back: [await health(), await page.title(), await opacity()] };
        """,
    )
    assert observed.found["gone"][0].startswith("no answer")
    # What the shop could sell is old too.
    assert observed.found["gone"][1:] == ["no answer · syncd", "0.6"]
    assert observed.found["back"] == ["ok All is well.", "ok · syncd", "1"]


def test_the_page_has_no_animation() -> None:
    """So `prefers-reduced-motion` has nothing to stop."""
    style = (Path(page.__file__).parent / "page.css").read_text()
    assert not {"animation", "transition", "scroll-behavior"} & set(re.findall(r"[\w-]+", style))


def test_the_page_of_a_daemon_refreshes_itself(shared: Daemon) -> None:
    """Under its own content policy, and from its own host only."""
    observed = browse(
        f"{shared.admin_url}/",
        """
        const at = await page.locator("#at").textContent();
        await page.waitForFunction((at) => document.getElementById("at").textContent !== at, at);
        return page.locator(".health").getAttribute("class");
        """,
    )
    assert observed.found == f"health {shared.status()['health']}"
    assert observed.faults == []
    assert all(requested.startswith(f"{shared.admin_url}/") for requested in observed.asked)
    assert len(observed.asked) >= 5
