// Fetches the page again every few seconds and changes only what differs, so that nobody loses the
// place they read at, the link they have focused, what they have opened or selected.
"use strict";

const live = document.getElementById("live");

// Sections and rows have a key, by which an old one is found again wherever it has moved.
function isSame(one, other) {
  return one.nodeName === other.nodeName && one.dataset?.key === other.dataset?.key;
}

function become(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const name of old.getAttributeNames()) {
    // What somebody has opened stays open.
    if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const name of fresh.getAttributeNames()) {
    const value = fresh.getAttribute(name);
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  let here = old.firstChild;
  for (const next of fresh.childNodes) {
    let found = here;
    while (found && next.dataset?.key && !isSame(found, next)) found = found.nextSibling;
    if (!found || !isSame(found, next)) {
      old.insertBefore(document.importNode(next, true), here);
      continue;
    }
    while (here !== found) here = dropped(here);
    become(found, next);
    here = found.nextSibling;
  }
  while (here) here = dropped(here);
}

function dropped(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function renew(fresh) {
  const wasInside = live.contains(document.activeElement);
  become(live, fresh.getElementById("live"));
  // What had the focus is gone: the next Tab goes on here, not at the top of the page.
  if (wasInside && !live.contains(document.activeElement)) live.focus({ preventScroll: true });
  become(document.querySelector("link[rel=icon]"), fresh.querySelector("link[rel=icon]"));
  document.title = fresh.title;
}

// An old "ok" is no "ok".
function doubt() {
  const health = live.querySelector(".health");
  if (health.className === "health gone") return;
  health.className = "health gone";
  health.querySelector("strong").textContent = "no answer";
  health.querySelector("span").textContent =
    "The daemon does not answer any more; what is below was true before.";
  document.querySelector("link[rel=icon]").setAttribute("href", "failing.svg");
  document.title = "no answer · syncd";
}

async function look() {
  try {
    const signal = AbortSignal.timeout(10000);
    const answer = await fetch(window.location.href, { cache: "no-store", signal });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!fresh.getElementById("live")) throw new Error(String(answer.status));
    renew(fresh);
  } catch {
    doubt();
  }
}

async function watch() {
  if (!document.hidden) await look();
  setTimeout(watch, Number(live.dataset.every) * 1000);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
setTimeout(watch, Number(live.dataset.every) * 1000);
