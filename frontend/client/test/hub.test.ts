import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Status } from "../src/connection.ts";
import { Channel } from "../src/channel.ts";
import { Hub } from "../src/hub.ts";
import type { TabPort, ToTab } from "../src/messages.ts";
import { keyOf, kindOf, type Json, type Kind } from "../src/protocol.ts";
import { FakeClock, settled } from "./fake-clock.ts";
import { FakeService } from "./fake-service.ts";

let clock: FakeClock;
let service: FakeService;
let hub: Hub;

beforeEach(() => {
  clock = new FakeClock();
  service = new FakeService();
  service.session = { ...service.session, expires: clock.wall() / 1000 + 3600 };
  hub = new Hub({ url: "https://app.example/api/v1/realtime", signed: false }, service.fetch, clock);
});
afterEach(() => hub.close());

/** A tab as `Realtime` is one, without a browser. */
class Tab implements TabPort {
  readonly statuses: Status[] = [];
  readonly heard: Json[] = [];
  readonly other: ToTab[] = [];
  readonly channels = new Map<string, Channel>();
  gaps = 0;

  constructor() {
    hub.take(this, { m: "join", tab: "tab", config: { url: "", signed: false } });
  }

  get status(): Status | undefined {
    return this.statuses.at(-1);
  }

  send(message: ToTab): void {
    if (message.m === "status") this.statuses.push(message.status);
    else if (message.m === "frame") {
      const kind = kindOf(message.frame);
      for (const one of ["events", "state", "append", "presence"] as const) {
        if (kind === undefined || kind === one) this.channels.get(keyOf(one, message.frame.topic))?.take(message.frame);
      }
    } else this.other.push(message);
  }

  listen(kind: Kind, topic: string, after?: { epoch: string; offset: number }): () => void {
    const channel = this.channels.get(keyOf(kind, topic)) ?? new Channel(kind, topic, (message) => hub.take(this, message));
    this.channels.set(keyOf(kind, topic), channel);
    return channel.listen({ event: (data) => this.heard.push(data), gap: () => void this.gaps++ }, after);
  }

  view(kind: Kind, topic: string) {
    return this.channels.get(keyOf(kind, topic))!.view;
  }
}

async function watching(topic = "t"): Promise<Tab> {
  const tab = new Tab();
  tab.listen("events", topic);
  await clock.pass(50);
  return tab;
}

const asked = (path: string): number => service.requests.filter((one) => one.path === path).length;

test("a browser that wants nothing asks for nothing", async () => {
  new Tab();
  await clock.pass(100_000);
  expect(service.requests).toEqual([]);
});

test("all tabs have one stream, and each has every event once", async () => {
  const tabs = await Promise.all([watching(), watching(), watching()]);
  for (let n = 1; n <= 5; n++) service.publish("t", n);
  await settled();
  expect(tabs.map(({ heard }) => heard)).toEqual(Array(3).fill([1, 2, 3, 4, 5]));
  expect([asked("/stream"), asked("/session"), service.streams.size]).toEqual([1, 1, 1]);
  expect(tabs.map(({ status }) => status)).toEqual(Array(3).fill("live"));
});

test("no address ever has the token in it, and each request but the session's has it in a header", async () => {
  const tab = await watching();
  tab.listen("state", "doc");
  hub.take(tab, { m: "publish", call: 1, body: { topic: "t", kind: "events", data: 1, id: "a" }, repeatable: true });
  hub.take(tab, { m: "present", topic: "t", member: "ada", data: 1 });
  await clock.pass(100);
  expect(new Set(service.requests.map(({ path }) => path))).toEqual(
    new Set(["/session", "/stream", "/subscribe", "/publish", "/presence"]),
  );
  for (const { url, path, token } of service.requests) {
    expect(url).not.toContain("t1");
    expect(token).toBe(path === "/session" ? undefined : "t1");
  }
});

test("more topics and fewer do not open another stream", async () => {
  const tab = await watching();
  const stop = tab.listen("events", "u");
  tab.listen("state", "u");
  await clock.pass(50);
  expect(asked("/subscribe")).toBe(1);
  service.publish("u", "new");
  await settled();
  stop();
  await clock.pass(5_000);
  expect(tab.heard).toEqual(["new"]);
  expect([...[...service.streams.values()][0]!.topics].sort()).toEqual(["events t", "state u"]);
  expect(asked("/stream")).toBe(1);
});

test("the stream ends with the last topic, and a page that comes back at once finds it open", async () => {
  const tab = new Tab();
  const stop = tab.listen("events", "t");
  await clock.pass(50);
  stop();
  await clock.pass(500);
  const again = tab.listen("events", "t");
  await clock.pass(5_000);
  expect([service.streams.size, asked("/stream")]).toEqual([1, 1]);
  again();
  await clock.pass(5_000);
  expect(service.streams.size).toBe(0);
  tab.listen("events", "t");
  await clock.pass(5_000);
  expect([service.streams.size, asked("/stream")]).toEqual([1, 2]);
});

test("the position of a topic stays when one of two that listen to it goes", async () => {
  const [one, two] = [await watching(), await watching()];
  const stop = two.listen("events", "t");
  stop();
  hub.leave(two);
  service.cut();
  service.publish("t", "meanwhile");
  await clock.pass(2_000);
  expect(one.heard).toEqual(["meanwhile"]);
});

test("a tab that comes later has the document, the text and who is there from the hub alone", async () => {
  const first = new Tab();
  first.listen("state", "doc");
  first.listen("append", "answer");
  first.listen("presence", "doc");
  await clock.pass(50);
  service.patch("doc", { title: "x" });
  service.append("answer", "so ");
  service.present("doc", "ada", { at: 1 });
  await settled();
  const before = service.requests.length;
  const late = new Tab();
  late.listen("state", "doc");
  late.listen("append", "answer");
  late.listen("presence", "doc");
  service.append("answer", "on");
  await clock.pass(50);
  expect(late.view("state", "doc").value).toEqual({ title: "x" });
  expect(late.view("append", "answer").text).toBe("so on");
  expect(late.view("presence", "doc").members).toEqual({ ada: { at: 1 } });
  expect(service.requests.length).toBe(before);
});

test("a tab that goes on after an older position gets what it missed, and the others nothing twice", async () => {
  const first = await watching();
  for (let n = 1; n <= 4; n++) service.publish("t", n);
  await settled();
  const { epoch } = first.view("events", "t");
  const late = new Tab();
  late.listen("events", "t", { epoch, offset: 2 });
  await clock.pass(50);
  service.publish("t", 5);
  await settled();
  expect([first.heard, late.heard, first.gaps, late.gaps]).toEqual([[1, 2, 3, 4, 5], [3, 4, 5], 0, 0]);
});

describe("when the stream breaks", () => {
  test("it comes back where it was, and nothing is lost or doubled", async () => {
    const tab = await watching();
    tab.listen("append", "answer");
    tab.listen("state", "doc");
    await clock.pass(50);
    for (let n = 1; n <= 20; n++) {
      service.publish("t", n);
      service.append("answer", `${n} `);
      service.patch("doc", { n, [`k${n % 3}`]: n });
      if (n % 4 === 0) service.cut();
      await clock.pass(n % 3 === 0 ? 3_000 : 10);
    }
    await clock.pass(40_000);
    expect(tab.heard).toEqual(Array.from({ length: 20 }, (_, n) => n + 1));
    expect(tab.view("append", "answer").text).toBe(service.log("append", "answer").text);
    expect(tab.view("state", "doc").value).toEqual(service.log("state", "doc").value);
    expect([tab.gaps, tab.status]).toEqual([0, "live"]);
  });

  test("it never gives up, waits at random between half a second and thirty, and says that it is offline", async () => {
    const tab = await watching();
    clock.chance = 0.999;
    service.down = true;
    service.cut();
    await clock.pass(86_400_000);
    expect(tab.status).toBe("offline");
    // Once its token has ended it is the session that it asks for first.
    const attempts = asked("/stream") + asked("/session");
    expect(attempts).toBeGreaterThan(86_400_000 / 30_000 - 5);
    expect(attempts).toBeLessThan(86_400_000 / 30_000 + 20);
    service.down = false;
    await clock.pass(31_000);
    expect(tab.status).toBe("live");
  });

  test("the network's return ends the wait", async () => {
    const tab = await watching();
    clock.chance = 0.999;
    service.down = true;
    service.cut();
    await clock.pass(600_000);
    service.down = false;
    hub.network(true);
    await clock.pass(10);
    expect(tab.status).toBe("live");
  });

  test("looking at the page ends the wait", async () => {
    const tab = await watching();
    clock.chance = 0.999;
    service.down = true;
    service.cut();
    await clock.pass(600_000);
    service.down = false;
    hub.take(tab, { m: "wake", why: "visible" });
    await clock.pass(10);
    expect(tab.status).toBe("live");
  });

  test("looking at the page of a stream that is heard changes nothing", async () => {
    const tab = await watching();
    hub.take(tab, { m: "wake", why: "visible" });
    await clock.pass(100);
    expect(asked("/stream")).toBe(1);
  });

  test("a new network means a new stream, as the old one's connections are dead without a word", async () => {
    await watching();
    hub.network(true);
    await clock.pass(100);
    expect(asked("/stream")).toBe(2);
  });

  test("a server that goes away says when to come back", async () => {
    const tab = await watching();
    service.say({ t: "bye", retry: 7_000, reason: "shutdown" });
    await clock.pass(6_900);
    expect([asked("/stream"), tab.status]).toEqual([1, "offline"]);
    await clock.pass(200);
    expect([asked("/stream"), tab.status]).toEqual([2, "live"]);
  });

  test("a server that has too many already is asked less and less often, and never before it says", async () => {
    const tab = await watching();
    clock.chance = 0.999;
    for (let n = 0; n < 20; n++) {
      service.say({ t: "bye", retry: 2_000, reason: "limit" });
      service.streams.clear();
      await clock.pass(1_900);
      expect(service.streams.size).toBe(0);
      await clock.pass(29_000);
    }
    expect(tab.status).toBe("live");
  });

  test("Retry-After is kept to", async () => {
    await watching();
    service.refusals.push({ path: "/stream", status: 503, code: "shutting-down", retryAfter: 20 });
    service.cut();
    await clock.pass(19_000);
    expect([asked("/stream"), service.streams.size]).toEqual([2, 0]);
    await clock.pass(3_000);
    expect(service.streams.size).toBe(1);
  });

  test("a server that fails at every stream is not asked faster and faster", async () => {
    await watching();
    clock.chance = 0.5;
    for (let n = 0; n < 200; n++) {
      service.cut();
      await clock.pass(1_000);
    }
    expect(asked("/stream")).toBeLessThan(40);
  });
});

describe("silence", () => {
  const beat = async (times: number): Promise<void> => {
    for (let n = 0; n < times; n++) {
      await clock.pass(20_000);
      service.say({ t: "ping" });
      await settled();
    }
  };

  test("of less than a heartbeat is none", async () => {
    const tab = await watching();
    await beat(30);
    expect([asked("/stream"), tab.status]).toEqual([1, "live"]);
  });

  test("that lasts is told, and then ends the stream", async () => {
    const tab = await watching();
    await clock.pass(41_000);
    expect(tab.status).toBe("stale");
    service.publish("t", "not heard of");
    await clock.pass(30_000);
    expect(tab.heard).toEqual(["not heard of"]);
    expect(asked("/stream")).toBeGreaterThanOrEqual(1);
  });

  test("that is not the server's is not taken for it: a change of the wall clock backwards", async () => {
    await watching();
    clock.sleep(-86_400_000);
    await beat(3);
    expect(asked("/stream")).toBe(1);
  });

  test("after sleep means a new stream, though the monotonic clock stood still", async () => {
    const tab = await watching();
    clock.sleep(3_600_000);
    hub.take(tab, { m: "wake", why: "visible" });
    await clock.pass(100);
    expect(asked("/stream")).toBe(2);
  });
});

describe("the token", () => {
  test("is replaced before it ends, without another stream", async () => {
    const tab = await watching();
    service.session = { ...service.session, token: "t2", expires: clock.wall() / 1000 + 7_200 };
    for (let n = 0; n < 360; n++) {
      await clock.pass(10_000);
      service.say({ t: "ping" });
    }
    await clock.pass(1);
    expect([asked("/stream"), asked("/auth"), asked("/session")]).toEqual([1, 1, 2]);
    expect(service.requests.find(({ path }) => path === "/auth")?.token).toBe("t2");
    expect(tab.status).toBe("live");
  });

  test("is replaced when the server warns, and its answer is no warning", async () => {
    await watching();
    const { expires } = service.session;
    service.say({ t: "auth", expires });
    await clock.pass(100);
    expect(asked("/auth")).toBe(1);
    service.say({ t: "auth", expires: expires + 600 });
    await clock.pass(100);
    expect(asked("/auth")).toBe(1);
  });

  test("that the server does not take is replaced, and the stream opens again", async () => {
    const tab = await watching();
    service.session = { ...service.session, token: "t2" };
    service.say({ t: "bye", retry: 0, reason: "expired" });
    await clock.pass(1_000);
    expect([tab.status, asked("/session"), asked("/stream")]).toEqual(["live", 2, 2]);
  });

  test("that ended while offline is replaced on the way back", async () => {
    const tab = await watching();
    service.down = true;
    service.cut();
    await clock.pass(4_000_000);
    service.session = { ...service.session, token: "t2", expires: clock.wall() / 1000 + 3_600 };
    service.down = false;
    await clock.pass(31_000);
    expect(tab.status).toBe("live");
  });

  test("of another workspace forgets all that was known", async () => {
    const tab = await watching();
    tab.listen("state", "doc");
    service.patch("doc", { secret: "acme" });
    await clock.pass(50);
    service.session = { ...service.session, token: "t2", workspace: "globex" };
    service.restart("state", "doc");
    service.say({ t: "bye", retry: 0, reason: "expired" });
    await clock.pass(1_000);
    expect(tab.other).toContainEqual({ m: "moved" });
    const reopened = service.requests.filter(({ path }) => path === "/stream").at(-1)!;
    expect((reopened.body["topics"] as { epoch: string }[]).map(({ epoch }) => epoch)).toEqual(["", ""]);
  });

  test("of a device whose clock is hours off is not asked for again and again", async () => {
    clock.sleep(7_200_000);
    const real = service.fetch;
    const serverTime = (): string => new Date(clock.wall() - 7_200_000).toUTCString();
    const dated: typeof fetch = async (...request) => {
      const response = await real(...request);
      response.headers.set("Date", serverTime());
      return response;
    };
    hub = new Hub({ url: "https://app.example/api/v1/realtime", signed: false }, dated, clock);
    const tab = await watching();
    for (let n = 0; n < 30; n++) {
      await clock.pass(10_000);
      service.say({ t: "ping" });
    }
    expect([tab.status, asked("/session")]).toEqual(["live", 1]);
  });
});

describe("what the UI is told", () => {
  test("a store that is away makes it stale until it is back", async () => {
    const tab = await watching();
    service.say({ t: "stale" });
    await settled();
    expect(tab.status).toBe("stale");
    service.say({ t: "live" });
    await settled();
    expect(tab.status).toBe("live");
  });

  test("events that nobody has any more are a gap, and never pass in silence", async () => {
    const tab = await watching();
    service.publish("t", 1);
    await settled();
    service.cut();
    for (let n = 2; n <= 6; n++) service.publish("t", n);
    service.trim("events", "t", 2);
    await clock.pass(2_000);
    expect([tab.heard, tab.gaps]).toEqual([[1, 5, 6], 1]);
  });

  test("an update that got lost on the way is fetched, and not passed over", async () => {
    const tab = await watching();
    tab.listen("state", "doc");
    tab.listen("append", "answer");
    await clock.pass(50);
    service.publish("t", 1);
    service.lose = 3;
    service.publish("t", 2);
    service.patch("doc", { a: 1 });
    service.append("answer", "one ");
    service.publish("t", 3);
    service.patch("doc", { b: 1 });
    service.append("answer", "two");
    await clock.pass(100);
    expect([tab.heard, tab.gaps]).toEqual([[1, 2, 3], 0]);
    expect(tab.view("state", "doc").value).toEqual({ a: 1, b: 1 });
    expect(tab.view("append", "answer").text).toBe("one two");
  });

  test("a topic that the token does not cover is refused, at first and later", async () => {
    service.forbidden.add("secret");
    const tab = new Tab();
    tab.listen("events", "secret");
    tab.listen("events", "t");
    await clock.pass(50);
    tab.listen("state", "secret");
    await clock.pass(50);
    const refused = tab.other.filter(({ m }) => m === "refused");
    expect(refused.map((one) => one.m === "refused" && one.refused.kind)).toEqual(["events", "state"]);
    expect(tab.status).toBe("live");
  });
});

describe("publishing", () => {
  const publish = (tab: Tab, body: { [name: string]: Json }, repeatable = true): void =>
    hub.take(tab, { m: "publish", call: 1, body, repeatable });

  test("goes through though the server is away for a while, and happens once", async () => {
    const tab = await watching();
    const real = service.fetch;
    let lost = 0;
    const losing: typeof fetch = async (input, init) => {
      const response = await real(input, init);
      // The server did it; the answer is lost.
      if (String(input).endsWith("/publish") && lost++ < 2) throw new TypeError("network error");
      return response;
    };
    const other = new Hub({ url: "https://app.example/api/v1/realtime", signed: false }, losing, clock);
    other.take(tab, { m: "publish", call: 1, body: { topic: "t", kind: "events", data: 1, id: "a" }, repeatable: true });
    await clock.pass(20_000);
    expect(tab.heard).toEqual([1]);
    expect(tab.other).toContainEqual({ m: "done", call: 1, result: { epoch: "e1", offset: 1 } });
  });

  test("of what could happen twice is not tried again", async () => {
    const tab = await watching();
    service.down = true;
    publish(tab, { topic: "a", kind: "append", text: "x" }, false);
    await clock.pass(20_000);
    expect(tab.other).toContainEqual(expect.objectContaining({ m: "failed", code: "network" }));
    expect(asked("/publish")).toBe(1);
  });

  test("that the server refuses fails at once, with its reason", async () => {
    const tab = await watching();
    publish(tab, { topic: "doc", kind: "state", patch: {}, version: 9 });
    await clock.pass(50);
    expect(tab.other).toContainEqual(expect.objectContaining({ m: "failed", code: "version-conflict", status: 409 }));
  });
});

describe("presence", () => {
  test("is told again on each new stream, and ends with the tab", async () => {
    const tab = await watching();
    hub.take(tab, { m: "present", topic: "doc", member: "tab", data: { x: 1 } });
    await clock.pass(50);
    expect(service.log("presence", "doc").members).toEqual({ "ada:tab": { x: 1 } });
    service.restart("presence", "doc");
    service.cut();
    await clock.pass(2_000);
    expect(service.log("presence", "doc").members).toEqual({ "ada:tab": { x: 1 } });
    hub.leave(tab);
    await clock.pass(50);
    expect(service.log("presence", "doc").members).toEqual({});
  });
});

test("whatever breaks, every tab has every event once and in order, and the document and text are the server's", async () => {
  type Step = "publish" | "lose" | "cut" | "down" | "up" | "wait" | "online" | "tab" | "stale" | "bye" | "expire";
  const step = fc.constantFrom<Step>("publish", "publish", "publish", "lose", "cut", "down", "up", "wait", "online", "tab", "stale", "bye", "expire");
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      service = new FakeService();
      service.session = { ...service.session, expires: clock.wall() / 1000 + 86_400 };
      hub = new Hub({ url: "https://app.example/api/v1/realtime", signed: false }, service.fetch, clock);
      const follow = async (): Promise<Tab> => {
        const tab = await watching();
        tab.listen("state", "doc");
        tab.listen("append", "answer");
        await clock.pass(50);
        return tab;
      };
      const first = await follow();
      const tabs = [first];
      let n = 0;
      for (const what of steps) {
        if (what === "publish" || what === "lose") {
          if (what === "lose") service.lose = 2;
          n += 1;
          service.publish("t", n);
          service.patch("doc", { [`k${n % 4}`]: n % 5 === 0 ? null : n });
          service.append("answer", `é${n} `);
        } else if (what === "cut") service.cut();
        else if (what === "down" || what === "up") service.down = what === "down";
        else if (what === "wait") await clock.pass(5_000);
        else if (what === "online") hub.network(true);
        else if (what === "stale") service.say({ t: "stale" });
        else if (what === "bye") {
          service.say({ t: "bye", retry: 100, reason: "slow" });
          service.streams.clear();
        } else if (what === "expire") service.session = { ...service.session, token: `t${n}x` };
        else tabs.push(await follow());
        await settled();
      }
      service.down = false;
      service.lose = 0;
      await clock.pass(31_000);
      service.publish("t", ++n);
      service.patch("doc", { end: true });
      service.append("answer", "end");
      await clock.pass(62_000);
      expect(first.heard).toEqual(Array.from({ length: n }, (_, index) => index + 1));
      for (const tab of tabs) {
        const got = tab.heard as number[];
        expect(got).toEqual(Array.from({ length: got.length }, (_, index) => n - got.length + 1 + index));
        expect(tab.view("state", "doc").value).toEqual(service.log("state", "doc").value);
        expect(tab.view("append", "answer").text).toBe(service.log("append", "answer").text);
        expect(tab.gaps).toBe(0);
      }
      hub.close();
      await settled();
    }),
    { numRuns: 60 },
  );
}, 30_000);
