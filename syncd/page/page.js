// Fetches the page again every few seconds and puts what changed in place, section by section, so
// that nobody loses the table they are scrolling or the link they have focused.
"use strict";

function renew(fresh) {
  const live = document.getElementById("live");
  const next = fresh.getElementById("live");
  if (!next || live.contains(document.activeElement) && document.activeElement !== live) {
    return;
  }
  const scrolled = [...live.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  live.replaceChildren(...document.importNode(next, true).childNodes);
  live.querySelectorAll(".scroll").forEach((one, n) => { one.scrollLeft = scrolled[n] || 0; });
  document.title = fresh.title;
}

async function look() {
  const foot = document.querySelector(".foot");
  try {
    const answer = await fetch(window.location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    if (foot && !foot.classList.contains("old")) {
      foot.classList.add("old");
      foot.append(" (the daemon does not answer any more)");
    }
  }
}

const every = Number(document.getElementById("live").dataset.every) * 1000;
setInterval(() => { if (!document.hidden) look(); }, every);
