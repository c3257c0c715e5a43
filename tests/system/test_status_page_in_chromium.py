"""The status page in a real browser: accessibility, keyboard, refresh and content policy."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import Seen, browse, needs_chromium, needs_playwright
from simulation.moments import AT, NAME, moments, showing

from syncd.admin import page
from syncd.core.relative_time import ago

if TYPE_CHECKING:
    from conftest import Daemon

pytestmark = [pytest.mark.long, needs_chromium, needs_playwright]

NAMES = [
    *("filling", "new", "healthy", "story", "found", "nothing", "shop", "skus", "lost", "nowhere"),
    *("refused", "rotated", "unreachable", "restarted", "held"),
    *("sweeping", "quarantined", "silent", "failing", "unreadable"),
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
# A folder for screenshots of all pages, for a person.
PICTURES = os.environ.get("SYNCD_PICTURES")
# Colours are the same at every width: each of both is seen, and not all that is possible.
LOOKS = [["phone", 375, 812, "light"], ["desk", 1280, 900, "dark"]]
if PICTURES:
    LOOKS += [["phone", 375, 812, "dark"], ["desk", 1280, 900, "light"]]

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
    # The browser itself logs an answer with 503, while the mirror cannot be read.
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
    assert {"status.json", "metrics"} <= {stop["label"] for stop in stops}
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
          document.querySelector("figure .scroll").scrollTop = 30;
          document.querySelector("[data-key=changes] li[data-key]").isTheSame = true;
          getSelection().selectAllChildren(document.querySelector("[data-key=changes] .who"));
        });
        const state = () => page.evaluate(() => ({
          title: document.title,
          state: document.querySelector(".state").textContent.trim(),
          icon: document.querySelector("link[rel=icon]").getAttribute("href"),
          announced: document.getElementById("announced").textContent,
          focused: document.activeElement.textContent,
          row: [...document.querySelectorAll("[data-key=changes] li[data-key]")]
            .findIndex((row) => row.isTheSame),
          isOpen: document.querySelector("details").open,
          down: window.scrollY,
          inside: document.querySelector("figure .scroll").scrollTop,
          selected: getSelection().toString(),
          quarantined: document.querySelectorAll("[data-key=quarantined] li").length,
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
        await page.waitForSelector(".hero.green");
        return { known, before, moved, after, again: await state() };
        """,
        viewport=PHONE,
    )
    before, moved, after = (
        observed.found["before"],
        observed.found["moved"],
        observed.found["after"],
    )
    assert (before["title"], before["row"], before["inside"]) == (f"All well · {NAME}", 0, 30)
    # A change has come on top; the link that had the focus has it still.
    assert moved["row"] == 1
    for name in ("isOpen", "focused", "selected", "inside"):
        assert moved[name] == before[name], name
    assert before["focused"] == observed.found["known"]
    assert abs(moved["down"] - before["down"]) < 200
    # Now it has left the list, and the page has the focus.
    assert (after["state"], after["icon"]) == ("Something to do", "amber.svg")
    assert (after["title"], after["row"]) == (f"Something to do · {NAME}", -1)
    assert after["quarantined"] == 3
    assert after["focused"] not in ("", before["focused"])
    # A screen reader says a new state, and nothing while the state lasts.
    assert [one["announced"] for one in (before, moved, after)] == ["", "", "Something to do"]
    # Whole parts of the page that come and go do not touch the others.
    assert after["isOpen"]
    assert observed.found["again"]["isOpen"]
    assert observed.faults == []


def test_a_page_without_a_daemon_says_so(url: str) -> None:
    """It recovers by itself when the daemon answers again."""
    observed = browse(
        f"{url}/?q=healthy",
        """
        const state = () => page.evaluate(() => ({
          note: document.getElementById("stale").innerText,
          title: document.title,
          opacity: getComputedStyle(document.querySelector("main")).opacity,
          icon: document.querySelector("link[rel=icon]").getAttribute("href"),
          announced: document.getElementById("announced").textContent,
        }));
        await page.route(/q=healthy/, (route) => route.abort());
        await page.waitForSelector("#stale:not([hidden])");
        const gone = await state();
        await page.unroute(/q=healthy/);
        await page.waitForSelector("#stale[hidden]", { state: "attached" });
        return { gone, back: await state() };
        """,
    )
    gone, back = observed.found["gone"], observed.found["back"]
    assert gone["note"].startswith("No answer. ")
    assert gone["announced"] == gone["note"]
    # The number of SKUs on sale is old too.
    assert (gone["title"], gone["opacity"], gone["icon"]) == (
        f"No answer · {NAME}",
        "0.6",
        "grey.svg",
    )
    assert (back["title"], back["opacity"], back["icon"], back["announced"]) == (
        f"All well · {NAME}",
        "1",
        "green.svg",
        "All well",
    )


def test_the_page_has_no_animation() -> None:
    """So `prefers-reduced-motion` has nothing to stop."""
    style = (Path(page.__file__).parent / "page.css").read_text()
    assert not {"animation", "transition", "scroll-behavior"} & set(re.findall(r"[\w-]+", style))


def test_times_are_of_the_reader(url: str) -> None:
    """In the reader's zone, with its name in the exact time; ages follow the daemon's clock."""
    observed = browse(
        f"{url}/?q=refused",
        """
        const texts = () => page.evaluate(() => [...document.querySelectorAll("time[data-form]")]
          .map(({ dateTime, title, textContent, dataset: { form } }) =>
            ({ dateTime, title, text: textContent, form })));
        const seen = await texts();
        // The clock of the browser is an hour ahead: no age may grow by an hour.
        await page.clock.setSystemTime(Date.now() + 3600 * 1000);
        await page.reload();
        return { seen, skewed: await texts(), zone: await page.innerText("[data-zone]") };
        """,
        timezoneId="Asia/Kolkata",
    )
    seen = observed.found["seen"]
    assert observed.found["zone"] == "times are of your zone, Asia/Calcutta"
    limit = next(one for one in seen if one["form"] == "at")
    # 2 March in UTC, 3 March in Kolkata.
    assert limit["dateTime"] == "2026-03-03T18:40:58.213398Z"
    assert limit["text"] == "4 Mar, 00:10"
    assert limit["title"].startswith("4 Mar 2026, 00:10:58 ")
    ages = [one for one in seen if one["form"] == "ago"]
    assert len(ages) > 20
    assert [one["text"] for one in observed.found["skewed"]] == [one["text"] for one in seen]
    # The same words as without the script.
    for one in ages:
        assert one["text"] == ago(one["dateTime"], AT)


def test_the_page_is_whole_without_javascript(url: str) -> None:
    """With times in UTC, and a note that it does not refresh itself."""
    observed = browse(
        f"{url}/?q=silent",
        """
        return { text: await page.innerText("body"), time: await page.innerText("time") };
        """,
        javaScriptEnabled=False,
        viewport=PHONE,
    )
    text = observed.found["text"]
    for part in ("Something to do", "Deliveries: stopped.", "times are UTC", "Reload the page"):
        assert part in text
    assert observed.found["time"].endswith(" ago")


def test_one_stream_serves_all_windows_of_a_browser(shared: Daemon) -> None:
    """A browser has six connections to a host: eight windows load, and all of them hear a change.

    A hidden window has no stream.
    """
    variant_id = next(iter(shared.site.catalogue.variants))
    shared.deliver(shared.site.change(variant_id, "in_stock"))
    observed = browse(
        f"{shared.admin_url}/",
        """
        const windows = [page];
        while (windows.length < 8) {
          const one = await page.context().newPage();
          await one.goto(page.url());
          windows.push(one);
        }
        const streams = () => Promise.all(windows.map((one) => one.evaluate(() =>
          [stream !== null, waiting !== null, document.hidden])));
        await page.waitForFunction(() => stream !== null || waiting !== null);
        const opened = await streams();
        // As if another window covered it: the next one takes over.
        const leader = opened.findIndex(([hasStream]) => hasStream);
        await windows[leader].evaluate(() => {
          Object.defineProperty(document, "hidden", { value: true });
          document.dispatchEvent(new Event("visibilitychange"));
        });
        const other = windows[leader === 0 ? 1 : 0];
        for (let n = 0; n < 50; n++) {
          if ((await streams()).some(([has], at) => has && at !== leader)) break;
          await other.waitForTimeout(100);
        }
        return { opened, after: await streams(), leader };
        """,
    )
    found = observed.found
    assert [has_stream for has_stream, _, _ in found["opened"]].count(True) == 1
    assert not found["after"][found["leader"]][0]
    assert [has_stream for has_stream, _, _ in found["after"]].count(True) == 1
    assert observed.faults == []


def test_the_page_of_a_daemon_shows_a_change(shared: Daemon) -> None:
    """Under its own content policy, and from its own host only; a silent stream is replaced."""
    site = shared.site
    variant_id = next(iter(site.catalogue.variants))
    shared.deliver(site.change(variant_id, "in_stock"))
    sending = threading.Timer(3.0, shared.deliver, [site.change(variant_id, "sold as seen")])
    sending.start()
    try:
        observed = browse(
            f"{shared.admin_url}/",
            """
            await page.waitForFunction(() => stream?.readyState === 1);
            // As after a sleep: nothing has been heard for long, and nothing has reported an end.
            const before = await page.evaluateHandle(() => stream);
            await page.evaluate(() => { heardAt = openedAt = -1e9; tick(); });
            await page.waitForFunction((old) => stream?.readyState === 1 && stream !== old, before);
            await page.waitForFunction(
              () => document.querySelector(".was").textContent.includes("sold as seen"));
            return page.locator(".hero").getAttribute("class");
            """,
        )
    finally:
        sending.join()
    assert observed.found.startswith("hero ")
    assert observed.faults == []
    assert all(requested.startswith(f"{shared.admin_url}/") for requested in observed.asked)
    assert f"{shared.admin_url}/events" in observed.asked
