// Runs a script on a page in Debian's Chromium: reads a job as JSON, and prints the results as JSON.
"use strict";
const fs = require("node:fs");
const { chromium } = require("playwright-core");

const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const AsyncFunction = (async () => {}).constructor;

// The debugger inserts axe, so the content policy of the page stays in force.
async function axe(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run());
  return violations.map(({ id, impact, nodes }) => ({
    id,
    impact,
    nodes: nodes.map((node) => `${node.html} ${node.failureSummary}`),
  }));
}

async function main() {
  const job = JSON.parse(fs.readFileSync(0, "utf8"));
  const browser = await chromium.launch({
    executablePath: job.chromium,
    args: ["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
  });
  try {
    const context = await browser.newContext(job.options);
    const page = await context.newPage();
    page.setDefaultTimeout(15000);
    const asked = [];
    const faults = [];
    page.on("request", (request) => asked.push(request.url()));
    page.on("pageerror", (error) => faults.push(String(error)));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) faults.push(message.text());
    });
    await page.goto(job.url);
    const found = await new AsyncFunction("page", "axe", job.script)(page, axe);
    return { found, asked, faults };
  } finally {
    await browser.close();
  }
}

main().then((answer) => process.stdout.write(JSON.stringify(answer)));
