// A session of ioredis, which speaks RESP2.
import { BINARY, LARGE, MANY, load, refused, restart, run, server, session, until } from "./session.mjs";

const Redis = load("ioredis");

function connect(options = {}) {
  const { host, port, password } = server;
  const client = new Redis({ host, port, password, retryStrategy: () => 20, maxRetriesPerRequest: null, ...options });
  client.on("error", () => {}); // a connection that ends is an event too; commands tell what became of them
  return client;
}

async function strings(client, assert) {
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.set("text", "grüße"), "OK");
  assert.equal(await client.get("text"), "grüße");
  assert.equal(await client.get("none"), null);
  assert.equal(await client.set("text", "x", "NX"), null);
  assert.equal(await client.set("text", "y", "GET"), "grüße");
  await client.set(BINARY, BINARY);
  assert.deepEqual(await client.getBuffer(BINARY), BINARY);
  await client.set("large", LARGE);
  assert.ok(LARGE.equals(await client.getBuffer("large")));
  assert.deepEqual(await client.mget("text", "none", "text"), ["y", null, "y"]);
  assert.equal(await client.exists("text", "text", "none"), 2);
  assert.equal(await client.strlen("large"), LARGE.length);
  assert.equal(await client.type("text"), "string");
  assert.equal(await client.getdel("text"), "y");
  assert.equal(await client.unlink("large", "none"), 1);
}

async function numbers(client, assert) {
  assert.equal(await client.incr("n"), 1);
  assert.equal(await client.incrby("n", 41), 42);
  assert.equal(await client.decr("n"), 41);
  assert.equal(Number(await client.incrbyfloat("n", 0.5)), 41.5);
  assert.equal(await client.append("log", "one,"), 4);
  assert.equal(await client.append("log", "two"), 7);
  assert.equal(await client.getrange("log", -3, -1), "two");
  assert.equal(await client.setbit("bits", 1000, 1), 0);
  assert.equal(await client.getbit("bits", 1000), 1);
  assert.equal(await client.bitcount("bits"), 1);
  assert.equal(await client.bitpos("bits", 1), 1000);
}

async function expiry(client, assert) {
  await client.set("short", "x", "PX", 30);
  await client.setex("long", 1000, "x");
  assert.ok((await client.ttl("long")) > 900);
  await until(async () => (await client.get("short")) === null);
  assert.equal(await client.ttl("short"), -2);
  assert.equal(await client.persist("long"), 1);
  assert.equal(await client.ttl("long"), -1);
}

async function errors(client, assert) {
  await client.set("text", "x");
  await refused(client.incr("text"), /^ERR value is not an integer or out of range$/);
  await refused(client.call("nosuch", "a"), /^ERR unknown command 'nosuch', with args beginning with: 'a' $/);
  await refused(client.call("get"), /^ERR wrong number of arguments for 'get' command$/);
  for (const [password, pattern] of [["wrong", /^WRONGPASS /], [undefined, /^NOAUTH /]]) {
    const stranger = connect({ password, lazyConnect: true, retryStrategy: () => null, enableReadyCheck: false });
    const said = new Promise((resolve) => stranger.on("error", resolve));
    const asked = stranger.get("text").then(() => assert.fail("a stranger was served"), (error) => error);
    assert.match((password === undefined ? await asked : await said).message, pattern);
    stranger.disconnect();
  }
  assert.equal(await client.get("text"), "x");
}

async function pipelines(client, assert) {
  const pipeline = client.pipeline();
  for (let i = 0; i < MANY; i++) pipeline.set(`p:${i % 50}`, i).get(`p:${i % 50}`);
  pipeline.incr("text").incr("counter");
  const found = await pipeline.exec();
  for (let i = 0; i < MANY; i++) assert.deepEqual(found[2 * i + 1], [null, `${i}`]);
  assert.match(found[2 * MANY][0].message, /^ERR value is not an integer/);
  assert.deepEqual(found[2 * MANY + 1], [null, 1]);
  const automatic = connect({ enableAutoPipelining: true });
  const counts = await Promise.all(Array.from({ length: 99 }, () => automatic.incr("counter")));
  assert.deepEqual(counts, Array.from({ length: 99 }, (_, i) => i + 2));
  await automatic.quit();
}

async function transactions(client, assert) {
  assert.equal(await client.mset("a", "1", "b", "2"), "OK");
  assert.equal(await client.msetnx("b", "3", "c", "4"), 0);
  assert.deepEqual(await client.multi().incr("a").get("b").incr("text").get("a").exec().then((all) => all.map(([error, value]) => error?.message ?? value)), [
    2, "2", "ERR value is not an integer or out of range", "2",
  ]);
  const other = connect();
  await client.watch("a");
  await other.set("a", "7");
  assert.equal(await client.multi().incr("a").exec(), null);
  assert.equal(await client.rename("a", "d"), "OK");
  assert.equal(await client.copy("d", "a"), 1);
  assert.deepEqual(await client.mget("a", "b", "c", "d"), ["7", "2", null, "7"]);
  await other.quit();
}

async function scans(client, assert) {
  const found = new Set();
  for await (const keys of client.scanStream({ match: "p:*", count: 7 })) for (const key of keys) found.add(key);
  assert.deepEqual([...found].sort(), Array.from({ length: 50 }, (_, i) => `p:${i}`).sort());
  assert.equal((await client.keys("p:1?")).length, 10);
}

async function identity(client, assert) {
  assert.equal(await client.client("GETNAME"), "web-1");
  assert.match(await client.client("INFO"), / name=web-1 .* lib-name=ioredis/);
  assert.equal(await client.client("SETNAME", "web-2"), "OK");
  assert.equal(await client.client("GETNAME"), "web-2");
  assert.deepEqual(await client.config("GET", "maxclients"), ["maxclients", "10000"]);
  assert.match(await client.info("server"), /redis_version:/);
  assert.equal((await client.dbsize()) > 0, true);
  assert.ok((await client.command("COUNT")) > 50);
}

// Somebody ends the connection: the client comes back by itself, as who it was, and goes on.
async function killed(client, assert) {
  const other = connect();
  const id = await client.client("ID");
  assert.equal(await other.client("KILL", "ID", id), 1);
  await until(async () => (await client.client("ID")) !== id);
  assert.equal(await client.client("GETNAME"), "web-1");
  assert.equal(await other.quit(), "OK");
}

async function outlived(client, assert) {
  await client.set("kept", "yes");
  await client.setex("kept for long", 1000, "yes");
  await client.del("n");
  await restart();
  assert.equal(await client.get("kept"), "yes");
  assert.equal(await client.get("n"), null);
  assert.ok((await client.ttl("kept for long")) > 800);
  assert.equal(await client.get("counter"), "100");
  assert.equal(await client.client("GETNAME"), "web-1");
  assert.equal(await client.incr("counter"), 101);
}

await session(async (assert) => {
  const client = connect({ connectionName: "web-1" });
  await run([strings, numbers, expiry, errors, pipelines, transactions, scans, identity, killed, outlived], client, assert);
  await client.quit();
});
