// Puts Upstash's own JavaScript clients to work against a gateway and prints what came of it, as one JSON object by name.
// Usage: node program.mjs URL TOKEN READONLY_TOKEN
import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis";

const [url, token, readOnlyToken] = process.argv.slice(2);
const redis = new Redis({ url, token });
const alone = new Redis({ url, token, enableAutoPipelining: false });
const raw = new Redis({ url, token, automaticDeserialization: false, enableAutoPipelining: false });
const results = {};

async function failure(promise) {
  try {
    return { resolved: await promise };
  } catch (error) {
    return error.message.split(", command was")[0];
  }
}

const checks = {
  async strings() {
    return [
      await redis.set("s", "value"),
      await redis.get("s"),
      await redis.get("none"),
      await redis.set("s", "other", { nx: true }),
      await redis.set("s", "new", { get: true }),
      await redis.mset({ a: "x", b: { nested: [1, null, "é"] } }),
      await redis.mget("a", "b", "none"),
      await redis.append("s", "er"),
      await redis.strlen("s"),
      await redis.getrange("s", 0, 2),
      await redis.setrange("s", 0, "N"),
      await redis.getset("s", "last"),
      await redis.setex("e", 100, 1),
      await redis.ttl("e"),
      await redis.getex("e", { ex: 50 }),
      await redis.getdel("e"),
      await redis.setnx("s", 1),
      await redis.incr("n"),
      await redis.incrby("n", 41),
      await redis.decr("n"),
      await redis.incrbyfloat("n", 0.5),
      await redis.exists("s", "n", "none"),
      await redis.type("s"),
      await redis.del("s", "n"),
      await redis.ping(),
      await redis.echo("hello"),
    ];
  },

  async values() {
    const given = [true, false, 0, -1.5, 1e-7, 1e21, 9007199254740991, "", "é😀\n\"\\", "OK", [1, "2"], { a: null }, "T0s="];
    const back = [];
    for (const value of given) {
      await alone.set("v", value);
      back.push(await alone.get("v"));
    }
    await alone.set("number", 1e-7);
    back.push(await raw.get("number"));
    await alone.set("big", "9007199254740993");
    back.push(await raw.get("big"));
    return back;
  },

  async bytes() {
    await redis.setbit("bits", 0, 1);
    await redis.setbit("bits", 7, 1);
    const plain = new Redis({ url, token, responseEncoding: false, automaticDeserialization: false });
    const answer = await fetch(`${url}/get/bits`, {
      headers: { Authorization: `Bearer ${token}`, "Upstash-Encoding": "base64" },
    });
    return [await plain.get("bits"), (await answer.json()).result, await redis.bitcount("bits", 0, -1), await redis.bitpos("bits", 0)];
  },

  async hashes() {
    return [
      await redis.hset("h", { a: 1, b: "two", c: { d: 3 } }),
      await redis.hget("h", "c"),
      await redis.hgetall("h"),
      await redis.hgetall("none"),
      await redis.hmget("h", "a", "none"),
      await redis.hincrby("h", "a", 5),
      await redis.hincrbyfloat("h", "a", 0.5),
      await redis.hexists("h", "b"),
      await redis.hkeys("h"),
      await redis.hvals("h"),
      await redis.hlen("h"),
      await redis.hsetnx("h", "b", "no"),
      await redis.hstrlen("h", "b"),
      await redis.hdel("h", "b", "none"),
      await redis.hscan("h", 0),
      await redis.hexpire("h", "a", 100),
      await redis.httl("h", "a"),
    ];
  },

  async lists() {
    return [
      await redis.rpush("l", "a", "b", { c: 1 }),
      await redis.lpush("l", "z"),
      await redis.lrange("l", 0, -1),
      await redis.llen("l"),
      await redis.lindex("l", 0),
      await redis.linsert("l", "before", "a", "y"),
      await redis.lset("l", 0, "first"),
      await redis.lpos("l", "b"),
      await redis.lrem("l", 1, "y"),
      await redis.ltrim("l", 0, 2),
      await redis.lmove("l", "m", "left", "right"),
      await redis.lpop("l", 2),
      await redis.rpop("m"),
      await redis.lpop("none"),
    ];
  },

  async sets() {
    return [
      await redis.sadd("s1", "a", "b", "c"),
      await redis.sadd("s2", "b", "c", "d"),
      (await redis.smembers("s1")).sort(),
      await redis.sismember("s1", "a"),
      await redis.smismember("s1", ["a", "z"]),
      (await redis.sinter("s1", "s2")).sort(),
      (await redis.sunion("s1", "s2")).sort(),
      await redis.sdiff("s1", "s2"),
      await redis.sinterstore("s3", "s1", "s2"),
      await redis.smove("s1", "s3", "a"),
      await redis.srem("s3", "a"),
      await redis.scard("s3"),
      (await redis.sscan("s2", 0))[0],
      typeof (await redis.srandmember("s2")),
      typeof (await redis.spop("s2")),
    ];
  },

  async sortedSets() {
    return [
      await redis.zadd("z", { score: 1, member: "a" }, { score: 2.5, member: "b" }, { score: 3, member: { c: 1 } }),
      await redis.zrange("z", 0, -1, { withScores: true }),
      await redis.zrange("z", 1, 3, { byScore: true }),
      await redis.zrange("z", 3, 1, { byScore: true, rev: true, count: 1, offset: 1 }),
      await redis.zscore("z", "b"),
      await redis.zmscore("z", ["a", "none"]),
      await redis.zrank("z", "b"),
      await redis.zrevrank("z", "a"),
      await redis.zincrby("z", 10, "a"),
      await redis.zcount("z", "-inf", "+inf"),
      await redis.zcard("z"),
      await redis.zpopmin("z"),
      await redis.zpopmax("z", 1),
      await redis.zadd("z", { nx: true }, { score: 5, member: "a" }),
      await redis.zunionstore("z2", 2, ["z", "z"]),
      await redis.zremrangebyscore("z", 0, 100),
    ];
  },

  async streams() {
    return [
      await redis.xadd("x", "1-1", { field: "value", n: 1 }),
      await redis.xadd("x", "2-1", { field: "other" }),
      await redis.xlen("x"),
      await redis.xrange("x", "-", "+"),
      await redis.xrevrange("x", "+", "-", 1),
      await redis.xread("x", "1-1"),
      await redis.xgroup("x", { type: "CREATE", group: "g", id: "0", options: { MKSTREAM: true } }),
      await redis.xreadgroup("g", "consumer", "x", ">", { count: 1 }),
      await redis.xack("x", "g", "1-1"),
      await redis.xpending("x", "g", "-", "+", 10),
      await redis.xdel("x", "2-1"),
      await redis.xtrim("x", { strategy: "MAXLEN", threshold: 0 }),
      await failure(redis.xread("x", "0", { blockMS: 10 })),
    ];
  },

  async others() {
    return [
      await redis.geoadd("g", { longitude: 13.361389, latitude: 38.115556, member: "Palermo" }),
      await redis.geopos("g", "Palermo").then(([place]) => Math.round(place.lng)),
      await redis.pfadd("p", "a", "b"),
      await redis.pfcount("p"),
      await redis.bitop("not", "not-p", "none"),
      await redis.expire("g", 100),
      await redis.persist("g"),
      await redis.rename("g", "g2"),
      await redis.copy("g2", "g3"),
      await redis.touch("g2", "g3"),
      await redis.unlink("g2", "g3"),
      await redis.set("dumped", "x").then(() => redis.expireat("dumped", 4102444800)),
      await redis.keys("dum*"),
      typeof (await redis.dbsize()),
      typeof (await redis.randomkey()),
      (await redis.time()).length,
      await redis.scan(0, { match: "dum*", count: 1000 }),
      await redis.scan(0, { match: "dum*", count: 1000, withType: true }),
    ];
  },

  async autoPipelining() {
    const keys = Array.from({ length: 100 }, (_, number) => `auto${number}`);
    const set = await Promise.all(keys.map((key, number) => redis.set(key, number)));
    const got = await Promise.all(keys.map((key) => redis.get(key)));
    return [set.every((reply) => reply === "OK"), got.every((value, number) => value === number)];
  },

  async pipelines() {
    const pipeline = redis.pipeline().set("p", 1).incr("p").get("p").hgetall("none");
    const failing = () => redis.pipeline().set("t", "text").incr("t").get("t");
    return [
      await pipeline.exec(),
      await failure(failing().exec()),
      (await failing().exec({ keepErrors: true })).map(({ result, error }) => error ?? result),
    ];
  },

  async transactions() {
    const isolated = await Promise.all(
      Array.from({ length: 25 }, () => redis.multi().incr("m").incr("m").get("m").exec()),
    );
    return [
      await redis.multi().set("t", 1).incr("t").exec(),
      isolated.every(([first, second, read]) => second === first + 1 && read === second),
      await redis.get("m"),
      (await redis.multi().set("t", "text").incr("t").get("t").exec({ keepErrors: true })).map((one) => one.error ?? one.result),
      await failure(alone.multi().set("never", 1).xread("x", "0", { blockMS: 10 }).exec()),
      await redis.get("never"),
    ];
  },

  async scripts() {
    const flagged = "#!lua flags=allow-key-locking\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])";
    const reading = "#!lua flags=no-writes,allow-key-locking\nreturn redis.call('GET', KEYS[1])";
    const sha = await redis.scriptLoad(flagged);
    const script = redis.createScript(flagged);
    await script.init(flagged);
    return [
      sha === script.sha1,
      await redis.scriptExists(sha, "0".repeat(40)),
      await redis.evalsha(sha, ["counter"], [5]),
      await redis.eval(flagged, ["counter"], [5]),
      await script.exec(["counter"], ["5"]),
      await redis.evalRo(reading, ["counter"], []),
      await redis.createScript(reading, { readonly: true }).exec(["counter"], []),
      await redis.eval("return {1, 'two', {3, false}}", [], []),
      await redis.scriptFlush({ async: true }),
      await failure(redis.evalsha(sha, ["counter"], [5])),
    ];
  },

  async rateLimits() {
    const seen = {};
    const limiters = {
      fixedWindow: Ratelimit.fixedWindow(3, "1 h"),
      slidingWindow: Ratelimit.slidingWindow(3, "1 h"),
      tokenBucket: Ratelimit.tokenBucket(1, "1 h", 3),
      cachedFixedWindow: Ratelimit.cachedFixedWindow(3, "1 h"),
    };
    for (const [name, limiter] of Object.entries(limiters)) {
      const ratelimit = new Ratelimit({ redis, limiter, prefix: `rl:${name}`, ephemeralCache: name.startsWith("cached") ? new Map() : false, analytics: false });
      const decisions = [];
      for (let number = 0; number < 5; number++) {
        const { success, limit, remaining, pending } = await ratelimit.limit("user");
        await pending;
        decisions.push([success, limit, Math.max(remaining, 0)]);
      }
      seen[name] = { decisions, remaining: (await ratelimit.getRemaining("user")).remaining };
      await ratelimit.resetUsedTokens("user");
      seen[name].afterReset = (await ratelimit.limit("user")).success;
    }
    return seen;
  },

  async messages() {
    const got = [];
    const heard = {};
    const expected = 6;
    await new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error(`heard only ${JSON.stringify(got)}`)), 15_000).unref();
      const channels = redis.subscribe(["news", "né ws"]);
      const patterns = redis.psubscribe("pat:*");
      const errors = (error) => reject(error);
      channels.on("error", errors);
      patterns.on("error", errors);
      const keep = (message) => {
        got.push(message);
        if (got.length === expected) resolve();
      };
      channels.on("message", ({ channel, message }) => keep([channel, message]));
      patterns.on("pmessage", ({ pattern, channel, message }) => keep([pattern, channel, message]));
      let confirmed = 0;
      const publish = async () => {
        if (++confirmed < 3) return;
        heard.listeners = [];
        for (const [channel, payload] of [
          ["news", "plain, with commas"],
          ["news", { json: [1, "é"] }],
          ["news", "two\nlines\r\nand three"],
          ["né ws", 5],
          ["pat:1", { a: "x\ny" }],
          ["pat:2", '{\n  "pretty": true\n}'],
        ]) {
          heard.listeners.push(await redis.publish(channel, payload));
        }
      };
      channels.on("subscribe", publish);
      patterns.on("psubscribe", publish);
      heard.stop = async () => {
        await channels.unsubscribe();
        await patterns.unsubscribe();
      };
    });
    await heard.stop();
    let left = -1;
    for (let tries = 0; tries < 200 && left !== 0; tries++) {
      left = await redis.publish("news", "nobody hears");
      if (left) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const sorted = got.map((one) => JSON.stringify(one)).sort();
    return [heard.listeners, sorted, left];
  },

  async errors() {
    const stranger = new Redis({ url, token: "wrong", enableAutoPipelining: false });
    const reader = new Redis({ url, token: readOnlyToken, enableAutoPipelining: false });
    await redis.set("text", "x");
    return [
      await failure(stranger.get("text")),
      await failure(alone.incr("text")),
      await failure(redis.incr("text")),
      await reader.get("text"),
      await failure(reader.set("text", 1)),
      await failure(reader.keys("*")),
      await failure(reader.eval("return 1", [], [])),
      await reader.evalRo("return 1", [], []),
    ];
  },

  async syncTokens() {
    const tokens = new Set();
    for (let number = 0; number < 5; number++) {
      await alone.set("sync", number);
      tokens.add(alone.client.upstashSyncToken);
    }
    return [tokens.size, [...tokens].every((one) => typeof one === "string" && one.length > 0)];
  },

  async rest() {
    const headers = { Authorization: `Bearer ${token}` };
    const text = async (path, options = {}) => {
      const answer = await fetch(url + path, { headers, ...options });
      return [answer.status, await answer.text()];
    };
    return [
      await text("/set/path%2Fkey/a%20b?EX=100"),
      await text("/get/path%2Fkey"),
      await text("/ttl/path%2Fkey"),
      await text("/set/body?EX=100", { method: "POST", body: JSON.stringify({ a: 1 }) }),
      await text("/get/body", { method: "PUT" }),
      await text(`/get/body?_token=${token}`, { headers: {} }),
      await text("/get/body", { headers: {} }),
      await text("/get/body", { method: "DELETE" }),
      await text("/get/body", { method: "HEAD" }),
      await text("/mget/body/none", { headers: { ...headers, "Upstash-Response-Format": "resp2" } }),
      await text("/nosuch/command"),
      await text("/set/large", { method: "POST", body: "x".repeat(11 * 1024 * 1024) }),
    ];
  },
};

for (const [name, check] of Object.entries(checks)) {
  await alone.flushall();
  try {
    results[name] = await check();
  } catch (error) {
    results[name] = { failed: `${error.name}: ${error.message}` };
  }
}
console.log(JSON.stringify(results));
process.exit(0); // not waiting for streams that a failed check has left open
