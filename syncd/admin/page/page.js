// Keeps the page as new as the daemon. A stream of server-sent events says when something changed;
// then the page is requested again, and only its differences are updated. The reader keeps the
// scroll position, the focus, the selection and the opened details.
"use strict";

const live = document.getElementById("live");
const everyS = Number(live.dataset.every);
// Without any event for this time the stream has ended, although nothing reported that: the
// computer was asleep, or a proxy has closed the other half.
const SILENT_S = 45;
// Some states change with the time alone.
const LONGEST_S = 60;
// A browser makes six connections to one host. All windows share one stream, if the browser can.
const channel = "BroadcastChannel" in window ? new BroadcastChannel("syncd") : null;

let stream = null;
let heardAt = 0;
let requestedAt = 0;
let isRequesting = false;
let release = null;
let waiting = null;
let openedAt = -Infinity;

const elapsedS = (since) => (performance.now() - since) / 1000;

// The time of the daemon: the clock of this computer may be wrong.
let daemonNow = Date.parse(live.dataset.now);
let daemonNowAt = performance.now();

function setClock(text) {
  const parsed = Date.parse(text);
  if (!parsed) return;
  daemonNow = parsed;
  daemonNowAt = performance.now();
}

// The same words as in syncd/core/relative_time.py.
function ago(moment) {
  const seconds = (daemonNow + performance.now() - daemonNowAt - moment) / 1000;
  for (const [unit, unitS, leastS] of [["day", 86400, 172800], ["hour", 3600, 7200], ["minute", 60, 60]]) {
    if (seconds >= leastS) {
      const count = Math.floor(seconds / unitS);
      return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
    }
  }
  return "less than a minute ago";
}

// In the reader's zone. The exact moment has the name of the zone.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const exactly = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });
const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

function shown(form, moment) {
  if (form === "ago") return ago(moment);
  if (form === "hour") return hour.format(moment);
  const isToday = day.format(moment) === day.format(daemonNow);
  return isToday ? hour.format(moment) : `${day.format(moment)}, ${hour.format(moment)}`;
}

function localize(root) {
  for (const one of root.querySelectorAll("time[data-form]")) {
    const moment = Date.parse(one.dateTime);
    if (!moment) continue;
    const text = shown(one.dataset.form, moment);
    if (one.textContent !== text) one.textContent = text;
    if (one.title !== exactly.format(moment)) one.title = exactly.format(moment);
  }
  for (const one of root.querySelectorAll("[data-zone]")) {
    const text = `times are of your zone, ${zone}`;
    if (one.textContent !== text) one.textContent = text;
  }
}

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

function setIcon(name) {
  const icon = document.querySelector("link[rel=icon]");
  if (icon.getAttribute("href") !== name) icon.setAttribute("href", name);
}

// A screen reader says only a new state, not each new age.
function announce(text) {
  document.getElementById("announced").textContent = text;
}

function updatePage(fresh) {
  const main = fresh.getElementById("live");
  const wasInside = live.contains(document.activeElement);
  const before = live.dataset.state;
  setClock(main.dataset.now);
  localize(main);
  update(live, main);
  // If the focused element was removed, the next Tab continues here and not at the top of the page.
  if (wasInside && !live.contains(document.activeElement)) live.focus({ preventScroll: true });
  document.getElementById("stale").hidden = true;
  setIcon(fresh.querySelector("link[rel=icon]").getAttribute("href"));
  document.title = fresh.title;
  if (live.dataset.state !== before) announce(live.dataset.state);
}

// Without an answer, an old "all well" must not remain visible.
function showNoAnswer() {
  const note = document.getElementById("stale");
  if (!note.hidden) return;
  note.hidden = false;
  live.className = "stale";
  live.dataset.state = "No answer";
  setIcon("grey.svg");
  document.title = `No answer · ${document.querySelector("h1").textContent.trim()}`;
  announce(note.textContent.trim());
}

async function refresh() {
  if (isRequesting || document.hidden) return;
  isRequesting = true;
  requestedAt = performance.now();
  try {
    const signal = AbortSignal.timeout(10000);
    const response = await fetch(window.location.href, { cache: "no-store", signal });
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    // Too many requests at the same time are no outage of the daemon.
    const isBusy = response.status === 503 && fresh.querySelector("main[data-busy]");
    if (!fresh.getElementById("live")) throw new Error(String(response.status));
    if (!isBusy) updatePage(fresh);
  } catch {
    showNoAnswer();
  } finally {
    isRequesting = false;
  }
}

// An event of the stream, of this window or of another one.
function hear(kind, now) {
  heardAt = performance.now();
  setClock(now);
  if (kind === "change" || !document.getElementById("stale").hidden) refresh();
}

function openStream() {
  stream = new EventSource("events");
  heardAt = openedAt = performance.now();
  let isFirst = true;
  for (const kind of ["begin", "change", "alive"]) {
    stream.addEventListener(kind, (event) => {
      // The page may have changed between two streams.
      const known = kind === "begin" && !isFirst ? "change" : kind;
      isFirst = false;
      channel?.postMessage([known, event.data]);
      hear(known, event.data);
    });
  }
  stream.addEventListener("error", () => {
    if (stream?.readyState === EventSource.CLOSED) closeStream();
    refresh();
  });
}

function closeStream() {
  stream?.close();
  release?.();
  waiting?.abort();
  stream = release = waiting = null;
}

// Only a visible page needs a stream, and only one window of a browser opens it; the others wait
// for their turn, and get its events.
function begin() {
  if (document.hidden || stream || waiting || elapsedS(openedAt) < 6 * everyS) return;
  if (!navigator.locks || !channel) {
    openStream();
    return;
  }
  const turn = new AbortController();
  waiting = turn;
  const lead = () => new Promise((resolve) => {
    release = resolve;
    openStream();
  });
  navigator.locks.request("syncd-stream", { signal: turn.signal }, lead).catch(() => {});
}

if (channel) channel.onmessage = ({ data: [kind, now] }) => hear(kind, now);

function tick() {
  if (document.hidden) return;
  localize(live);
  if (stream && elapsedS(heardAt) > SILENT_S) {
    closeStream();
    refresh();
  }
  begin();
  const isLive = heardAt > 0 && elapsedS(heardAt) < SILENT_S;
  if (elapsedS(requestedAt) >= (isLive ? LONGEST_S : everyS)) refresh();
}

function appear() {
  if (document.hidden) {
    closeStream();
    return;
  }
  openedAt = -Infinity;
  refresh();
  begin();
}

document.addEventListener("visibilitychange", appear);
window.addEventListener("online", appear);
window.addEventListener("pageshow", (event) => { if (event.persisted) appear(); });
window.addEventListener("pagehide", closeStream);

localize(document);
requestedAt = performance.now();
begin();
setInterval(tick, Math.min(everyS, 5) * 1000);
