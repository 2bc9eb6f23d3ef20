// BullMQ for queue.py: node queue_bullmq.mjs bullmq URL send|pace|work COUNT, each prints a line of JSON; see queue_peers.py.
import { Queue, Worker } from "bullmq";

const [, , , url, how, text] = process.argv;
const count = Number(text);
const { hostname: host, port } = new URL(url);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const seconds = () => Number(process.hrtime.bigint()) / 1e9;

if (how === "work") {
  const times = [];
  const late = [];
  new Worker(
    "bench",
    async (job) => {
      const now = seconds();
      times.push(now);
      if (job.data.sent) late.push((now - job.data.sent) * 1e3);
      if (times.length === count) {
        late.sort((a, b) => a - b);
        const rate = (count - 1) / (times[count - 1] - times[0]);
        const at = (share) => late[Math.floor(late.length * share)] ?? 0;
        console.log(JSON.stringify({ rate, p50: at(0.5), p99: at(0.99) }));
        setTimeout(() => process.exit(0), 300);
      }
    },
    { connection, concurrency: 100, removeOnComplete: { age: 3600 } },
  );
} else {
  const queue = new Queue("bench", { connection });
  await queue.waitUntilReady();
  const began = seconds();
  if (how === "pace") {
    for (let i = 0; i < count; i++) {
      await queue.add("nothing", { sent: seconds() });
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  } else {
    const caller = async () => {
      for (let i = 0; i < count / 100; i++) await queue.add("nothing", {});
    };
    await Promise.all(Array.from({ length: 100 }, caller));
  }
  console.log(JSON.stringify({ rate: count / (seconds() - began) }));
  await queue.close();
}
