// Fetches the page every few seconds and updates only the differences. The reader keeps the scroll
// position, the focus, the selection and the opened details.
"use strict";

const live = document.getElementById("live");

// Sections and rows have a key, so that an old node is found again after it has moved.
function isSame(node, other) {
  return node.nodeName === other.nodeName && node.dataset?.key === other.dataset?.key;
}

function update(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const name of old.getAttributeNames()) {
    // Opened details stay open.
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
    while (here !== found) here = removeNode(here);
    update(found, next);
    here = found.nextSibling;
  }
  while (here) here = removeNode(here);
}

// Removes a node and returns the next one.
function removeNode(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function updatePage(fresh) {
  const wasInside = live.contains(document.activeElement);
  update(live, fresh.getElementById("live"));
  // If the focused element was removed, the next Tab continues here and not at the top of the page.
  if (wasInside && !live.contains(document.activeElement)) live.focus({ preventScroll: true });
  update(document.querySelector("link[rel=icon]"), fresh.querySelector("link[rel=icon]"));
  document.title = fresh.title;
}

// Without an answer, an old "ok" must not remain visible.
function showNoAnswer() {
  const health = live.querySelector(".health");
  if (health.className === "health stale") return;
  health.className = "health stale";
  live.className = "stale";
  health.querySelector("strong").textContent = "no answer";
  health.querySelector("span").textContent =
    "The daemon does not answer. The content below is old.";
  document.querySelector("link[rel=icon]").setAttribute("href", "failing.svg");
  document.title = "no answer · syncd";
}

async function refresh() {
  try {
    const signal = AbortSignal.timeout(10000);
    const response = await fetch(window.location.href, { cache: "no-store", signal });
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    if (!fresh.getElementById("live")) throw new Error(String(response.status));
    updatePage(fresh);
  } catch {
    showNoAnswer();
  }
}

async function refreshRepeatedly() {
  if (!document.hidden) await refresh();
  setTimeout(refreshRepeatedly, Number(live.dataset.every) * 1000);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
setTimeout(refreshRepeatedly, Number(live.dataset.every) * 1000);
