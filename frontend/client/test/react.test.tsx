// @vitest-environment jsdom
import { act, StrictMode, type ReactNode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { QueryClient } from "@tanstack/react-query";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Realtime } from "../src/index.ts";
import { RealtimeProvider, useJob, usePresence, useSharedState, useTokenStream, useTopic } from "../src/react.ts";
import { foldInto, invalidateOn, syncQuery } from "../src/tanstack.ts";
import type { Json } from "../src/protocol.ts";
import { FakeService } from "./fake-service.ts";

let service: FakeService;
let realtime: Realtime;
let root: Root;
let page: HTMLElement;

beforeEach(() => {
  (globalThis as Record<string, unknown>)["IS_REACT_ACT_ENVIRONMENT"] = true;
  service = new FakeService();
  service.session = { ...service.session, expires: Date.now() / 1000 + 3600 };
  vi.stubGlobal("fetch", service.fetch);
  realtime = new Realtime({ identity: "ada", url: "https://app.example/api/v1/realtime" });
  page = document.createElement("div");
  root = createRoot(page);
});
afterEach(() => {
  act(() => root.unmount());
  realtime.close();
  vi.unstubAllGlobals();
});

/** Lets what is under way arrive. */
const arrive = (): Promise<void> => act(() => new Promise<void>((resolve) => setTimeout(resolve, 40)));

async function show(children: ReactNode): Promise<void> {
  // Strict mode mounts, unmounts and mounts again, as development does.
  act(() =>
    root.render(
      <StrictMode>
        <RealtimeProvider realtime={realtime}>{children}</RealtimeProvider>
      </StrictMode>,
    ),
  );
  await arrive();
}

test("useTopic shows each event once, in order", async () => {
  const heard: Json[] = [];
  function Log() {
    const { events, status } = useTopic("t", { keep: 2, onEvent: (event) => heard.push(event) });
    return <p>{`${status} ${events.join(",")}`}</p>;
  }
  await show(<Log />);
  for (let n = 1; n <= 3; n++) service.publish("t", n);
  await arrive();
  expect([page.textContent, heard]).toEqual(["live 2,3", [1, 2, 3]]);
  expect(service.streams.size).toBe(1);
});

test("useTopic publishes, and tells a gap", async () => {
  let publish: (event: Json) => Promise<unknown> = () => Promise.reject(new Error("not shown"));
  function Log() {
    const topic = useTopic("t");
    publish = topic.publish;
    return <p>{`${topic.events.join(",")} ${topic.gaps}`}</p>;
  }
  await show(<Log />);
  await act(() => publish("said"));
  await arrive();
  expect(page.textContent).toBe("said 0");
  service.cut();
  for (let n = 0; n < 5; n++) service.publish("t", n);
  service.trim("events", "t", 1);
  await act(() => new Promise((resolve) => setTimeout(resolve, 1_100)));
  expect(page.textContent).toBe("said,4 1");
});

test("useSharedState shows the own change at once, and the server's in the end", async () => {
  let patch: (patch: { [name: string]: Json }) => Promise<unknown> = () => Promise.reject(new Error("not shown"));
  function Editor() {
    const state = useSharedState("doc");
    patch = state.patch as typeof patch;
    return <p>{`${JSON.stringify(state.value)} ${JSON.stringify(state.draft)} ${state.saving}`}</p>;
  }
  await show(<Editor />);
  let typing: Promise<unknown>[] = [];
  act(() => {
    typing = ["a", "ab", "abc"].map((title) => patch({ title }));
  });
  expect(page.textContent).toBe('{} {"title":"abc"} true');
  await act(() => Promise.all(typing));
  await arrive();
  expect(page.textContent).toBe('{"title":"abc"} {"title":"abc"} false');
  expect(service.requests.filter(({ path }) => path === "/publish").map(({ body }) => body["patch"])).toEqual([
    { title: "a" },
    { title: "abc" },
  ]);
  service.refusals.push({ path: "/publish", status: 403, code: "forbidden" });
  await act(async () => {
    await expect(patch({ title: "not mine" })).rejects.toMatchObject({ code: "forbidden" });
  });
  expect(page.textContent).toBe('{"title":"abc"} {"title":"abc"} false');
});

test("usePresence is there while it is shown, and a change of its data is no going and coming", async () => {
  function Here({ at }: { readonly at: number }) {
    const { members, isMine } = usePresence("doc", { data: { at } });
    return <p>{Object.entries(members).map(([name, data]) => `${isMine(name)} ${JSON.stringify(data)}`)}</p>;
  }
  await show(<Here at={1} />);
  expect(page.textContent).toBe('true {"at":1}');
  await show(<Here at={2} />);
  expect(page.textContent).toBe('true {"at":2}');
  const before = service.requests.length;
  await show(<Here at={3} />);
  expect(service.requests.slice(before).map(({ body }) => body["leave"])).toEqual([undefined]);
  await show(<p>gone</p>);
  expect(service.log("presence", "doc").members).toEqual({});
});

test("useTokenStream shows the text as it grows, and that it is done", async () => {
  service.append("answer", "Once ");
  function Answer() {
    const { text, done } = useTokenStream("answer");
    return <p>{`${text}${done ? "." : "_"}`}</p>;
  }
  await show(<Answer />);
  expect(page.textContent).toBe("Once _");
  service.append("answer", "more", true);
  await arrive();
  expect(page.textContent).toBe("Once more.");
});

test("useJob shows progress, lines, text and the result", async () => {
  function Progress() {
    const { progress, message, logs, text, ended, result } = useJob("7");
    return <p>{JSON.stringify([progress, message, logs.length, text, ended, result])}</p>;
  }
  await show(<Progress />);
  service.publish("job:7", { kind: "progress", value: 0.5, message: "half" });
  service.publish("job:7", { kind: "log", message: "line" });
  service.append("job:7", "so ");
  service.append("job:7", "far");
  await arrive();
  expect(page.textContent).toBe('[0.5,"half",1,"so far",null,null]');
  service.publish("job:7", { kind: "end", status: "done", result: 42 });
  await arrive();
  expect(page.textContent).toBe('[0.5,"half",1,"so far","done",42]');
});

test("useJob shows what was told before anybody looked, and tells when its beginning is lost", async () => {
  service.publish("job:7", { kind: "progress", value: 0.5, message: "half" });
  service.append("job:7", "so far");
  service.publish("job:7", { kind: "end", status: "done", result: 42 });
  function Progress() {
    const { progress, text, ended, result, gap } = useJob("7");
    return <p>{JSON.stringify([progress, text, ended, result, gap])}</p>;
  }
  await show(<Progress />);
  await arrive();
  expect(page.textContent).toBe('[0.5,"so far","done",42,false]');

  const late = realtime.job("8");
  service.publish("job:8", { kind: "progress", value: 0.5, message: "lost" });
  service.publish("job:8", { kind: "progress", value: 0.9, message: "kept" });
  service.trim("events", "job:8", 1);
  late.listen(() => undefined);
  await arrive();
  expect([late.snapshot.message, late.snapshot.gap]).toEqual(["kept", true]);
});

test("TanStack Query: a document is a query's data, events fold into one, and make others be fetched again", async () => {
  const queries = new QueryClient();
  const invalidated = vi.spyOn(queries, "invalidateQueries");
  queries.setQueryData(["log"], [] as Json[]);
  const stops = [
    syncQuery(queries, ["doc"], realtime.state("doc")),
    foldInto(queries, ["log"], realtime.events("t"), (log: Json[], event) => [...log, event]),
    invalidateOn(queries, realtime.events("t"), (event) => [["campaign", event]]),
  ];
  await arrive();
  service.patch("doc", { title: "x" });
  service.publish("t", 9);
  await arrive();
  expect(queries.getQueryData(["doc"])).toEqual({ title: "x" });
  expect(queries.getQueryData(["log"])).toEqual([9]);
  expect(invalidated).toHaveBeenCalledWith({ queryKey: ["campaign", 9] });
  for (const stop of stops) stop();
});
