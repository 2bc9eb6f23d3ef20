// What each tab of the tests does: listens to one topic of each kind, and keeps what it hears where the test looks.

import { Realtime } from "./client/index.js";

const query = new URLSearchParams(location.search);
const name = query.get("name") ?? "t";
const user = query.get("user") ?? "ada";
const ways = query.get("sharing");

const realtime = new Realtime({
  identity: user,
  token: async () => (await fetch(`/token?user=${user}`, { method: "POST" })).text(),
  ...(ways && { sharing: [ways] }),
});
const state = realtime.state(`doc:${name}`);
const text = realtime.text(`answer:${name}`);
const presence = realtime.presence(`doc:${name}`);
const events = realtime.events(`campaign:${name}`);

const seen = { events: [], positions: [], gaps: 0, versions: [], statuses: [], started: false };
realtime.onStatus((status) => seen.statuses.push(status));
events.listen(
  (event, at) => {
    seen.events.push(event);
    seen.positions.push(at);
  },
  { onGap: () => (seen.gaps += 1) },
);
state.listen(({ value }) => {
  if (value !== undefined && seen.versions.at(-1) !== JSON.stringify(value)) seen.versions.push(JSON.stringify(value));
});
text.listen(() => undefined);
presence.listen(() => undefined);

window.tab = { realtime, state, text, presence, events, seen };
