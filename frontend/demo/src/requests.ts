/** Asks the demo to start something; what comes of it is told by realtime. */
export async function ask(what: "answers" | "plans", body: Record<string, unknown>): Promise<void> {
  const answer = await fetch(what, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`The demo answered ${answer.status}.`);
}
