import { createRoot } from "react-dom/client";
import { Realtime } from "@raptorflow/redis";
import { RealtimeProvider } from "@raptorflow/redis/react";
import { Page } from "./page.tsx";

interface Me {
  readonly user: string;
  readonly workspace: string;
}

const root = createRoot(document.getElementById("page")!);
const answer = await fetch("../api/me");

if (answer.ok) {
  const me = (await answer.json()) as Me;
  // Another user of this browser, or another workspace, never shares a stream with this one.
  const realtime = new Realtime({ identity: `${me.user}@${me.workspace}`, url: new URL("../realtime", location.href).href });
  const campaign = new URLSearchParams(location.search).get("campaign") ?? "spring";
  root.render(
    <RealtimeProvider realtime={realtime}>
      <Page user={me.user} workspace={me.workspace} campaign={campaign} />
    </RealtimeProvider>,
  );
} else {
  root.render(
    <main className="alone">
      <h1>Campaign, live</h1>
      <p>
        <a href="../">Log in</a> to the demo first, then come back here.
      </p>
    </main>,
  );
}
