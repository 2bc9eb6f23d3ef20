// Drives Chromium for the tests: one line of JSON in, one out.

import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browser = await chromium.launch({ executablePath: process.argv[2], args: ["--no-sandbox"] });
const contexts = new Map();
const tabs = new Map();

async function contextOf(name) {
  if (!contexts.has(name)) contexts.set(name, await browser.newContext());
  return contexts.get(name);
}

const commands = {
  /** Opens a tab; what goes wrong in it is kept. */
  async open({ tab, url, context = "one", script, width = 1280, height = 900, dark = false }) {
    const page = await (await contextOf(context)).newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => message.type() === "error" && errors.push(`${message.text()} ${message.location().url}`));
    if (script) await page.addInitScript(script);
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: dark ? "dark" : "light" });
    tabs.set(tab, { page, errors });
    await page.goto(url, { timeout: 30_000 });
  },
  async eval({ tab, code, argument }) {
    return await tabs.get(tab).page.evaluate(`(${code})(${JSON.stringify(argument ?? null)})`);
  },
  /** Waits until a function gives true in the tab. Not by waitForFunction, which pages with a strict content policy forbid. */
  async wait({ tab, code, argument, seconds = 40 }) {
    const until = Date.now() + seconds * 1000;
    while (!(await tabs.get(tab).page.evaluate(`(${code})(${JSON.stringify(argument ?? null)})`))) {
      if (Date.now() > until) throw new Error(`not within ${seconds} s`);
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  },
  async fill({ tab, selector, text }) {
    await tabs.get(tab).page.fill(selector, text);
  },
  async type({ tab, selector, text }) {
    await tabs.get(tab).page.locator(selector).pressSequentially(text, { delay: 5 });
  },
  async click({ tab, selector }) {
    await tabs.get(tab).page.click(selector);
  },
  async press({ tab, key }) {
    await tabs.get(tab).page.keyboard.press(key);
  },
  /** Another window, and light or dark. */
  async look({ tab, width = 1280, height = 900, dark = false }) {
    const { page } = tabs.get(tab);
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: dark ? "dark" : "light" });
  },
  /** What axe-core finds: the rule, where, and why. Evaluated, because a strict content policy lets no script of ours be loaded. */
  async axe({ tab, source }) {
    const { page } = tabs.get(tab);
    if (!(await page.evaluate("typeof axe === 'object'"))) await page.evaluate(await readFile(source, "utf-8"));
    return await page.evaluate(`axe.run({ resultTypes: ["violations"] }).then(({ violations }) => violations.map((one) => ({
      rule: one.id, where: one.nodes.map((node) => node.html.slice(0, 200)), why: one.nodes[0]?.failureSummary })))`);
  },
  async goto({ tab, url }) {
    await tabs.get(tab).page.goto(url);
  },
  async reload({ tab }) {
    await tabs.get(tab).page.reload();
  },
  async close({ tab }) {
    await tabs.get(tab).page.close();
    tabs.delete(tab);
  },
  async forget({ context = "one" }) {
    for (const [name, { page }] of [...tabs]) if (page.context() === contexts.get(context)) tabs.delete(name);
    await contexts.get(context)?.close();
    contexts.delete(context);
  },
  async offline({ context = "one", value }) {
    await (await contextOf(context)).setOffline(value);
  },
  /** Ends the shared workers, as a crash does. */
  async killWorker() {
    const session = await browser.newBrowserCDPSession();
    const { targetInfos } = await session.send("Target.getTargets", { filter: [{ type: "shared_worker" }] });
    for (const { targetId } of targetInfos) await session.send("Target.closeTarget", { targetId });
    return targetInfos.length;
  },
  /** An event in the shared workers themselves, as the browser would tell them. */
  async tellWorkers({ event }) {
    const session = await browser.newBrowserCDPSession();
    const { targetInfos } = await session.send("Target.getTargets", { filter: [{ type: "shared_worker" }] });
    for (const { targetId } of targetInfos) {
      const { sessionId } = await session.send("Target.attachToTarget", { targetId, flatten: false });
      const expression = `dispatchEvent(new Event(${JSON.stringify(event)}))`;
      const done = new Promise((resolve) =>
        session.on("Target.receivedMessageFromTarget", (answer) => answer.sessionId === sessionId && resolve()),
      );
      const message = JSON.stringify({ id: 1, method: "Runtime.evaluate", params: { expression } });
      await session.send("Target.sendMessageToTarget", { sessionId, message });
      await done;
    }
    await session.detach();
    return targetInfos.length;
  },
  async screenshot({ tab, path, fullPage = true }) {
    await tabs.get(tab).page.screenshot({ path, fullPage });
  },
  errors: async ({ tab }) => tabs.get(tab).errors,
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...options } = JSON.parse(line);
  try {
    process.stdout.write(`${JSON.stringify({ ok: (await commands[name](options)) ?? null })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ error: String(error) })}\n`);
  }
}
await browser.close();
