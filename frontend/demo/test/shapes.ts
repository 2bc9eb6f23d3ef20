// Compiled by backend/tests/integration/test_typescript_shapes.py: each line that ends with `// wrong` must be an error, and no other.

import { Realtime } from "@raptorflow/redis";
import { useJob, usePresence, useSharedState, useTokenStream, useTopic } from "@raptorflow/redis/react";
import { foldInto, invalidateOn, syncQuery } from "@raptorflow/redis/tanstack";

declare const queries: Parameters<typeof syncQuery>[0];
const realtime = new Realtime({ identity: "ada" });
const id: string = "9";

// Publishing.
void realtime.events("campaign:9").publish({ type: "Said", by: "ada", text: "hello" });
void realtime.events(`campaign:${id}`).publish({ type: "Saved", by: "ada", field: "title" });
void realtime.events("campaign:9").publish({ type: "Said", by: "ada" }); // wrong
void realtime.events("campaign:9").publish({ type: "Said", by: "ada", text: 1 }); // wrong
void realtime.events("campaign:9").publish({ type: "Sold", by: "ada", text: "x" }); // wrong
void realtime.events("campaign:9").publish({ type: "Said", by: "ada", text: "x", more: true }); // wrong
void realtime.events("champagne:9").publish({ type: "Said", by: "ada", text: "x" }); // wrong
void realtime.events("answer:7"); // wrong
void realtime.state("campaign:9").patch({ budget: 5 });
void realtime.state("campaign:9").patch({ notes: null }, { version: 3 });
void realtime.state("campaign:9").patch({ budget: "five" }); // wrong
void realtime.state("campaign:9").patch({ colour: "red" }); // wrong
void realtime.state("campaign:9").set({ title: "x", budget: "5" }); // wrong
void realtime.text("answer:7").append("so");
void realtime.text("answer:7").append(7); // wrong
void realtime.text("campaign:9"); // wrong
realtime.presence("campaign:9").join({ name: "Ada", hue: 20 });
realtime.presence("campaign:9").join({ name: "Ada" }); // wrong

// Reading.
realtime.events("campaign:9").listen((event) => {
  const by: string = event.by;
  const text: string = event.text; // wrong
  if (event.type === "Said") console.log(by, event.text.length, text);
  if (event.type === "Sold") console.log(by); // wrong
});
const title: string | undefined = realtime.state("campaign:9").snapshot.value?.title;
const budget: string | undefined = realtime.state("campaign:9").snapshot.value?.budget; // wrong
console.log(title, budget);

export function Page(): void {
  const { events, publish } = useTopic("campaign:9", { onEvent: (event) => console.log(event.by) });
  console.log(events[0]?.by, events[0]?.price); // wrong
  void publish({ type: "Said", by: "ada", text: "x" });
  void publish({ type: "Said" }); // wrong
  const { draft, patch } = useSharedState("campaign:9");
  console.log(draft?.audience, draft?.audiences); // wrong
  void patch({ audience: "all" });
  void patch({ audience: 7 }); // wrong
  const { members } = usePresence("campaign:9", { data: { name: "Ada", hue: 1 } });
  for (const { name, hue } of Object.values(members)) console.log(name.length, hue.toFixed());
  usePresence("campaign:9", { data: { name: "Ada", hue: "red" } }); // wrong
  const { text } = useTokenStream("answer:1");
  console.log(text.length);
  useTokenStream("campaign:1"); // wrong
  const { result } = useJob("j1", "demo.plan");
  console.log(result?.channels.length, result?.price); // wrong
  useJob("j1", "demo.plam"); // wrong
}

// TanStack Query.
syncQuery(queries, ["campaign", id], realtime.state("campaign:9"));
invalidateOn(queries, realtime.events("campaign:9"), (event) => [["campaign", event.by]]);
invalidateOn(queries, realtime.events("campaign:9"), (event) => [["campaign", event.id]]); // wrong
foldInto(queries, ["log"], realtime.events("campaign:9"), (log: string[], event) => [...log, event.by]);
