// A session of node-redis (package "redis"), RESP2 or RESP3.
import { BINARY, LARGE, MANY, load, refused, restart, run, server, session, until } from "./session.mjs";

const { RESP_TYPES, createClient } = load("redis");

function connect(options = {}) {
  const { host, port, password, protocol } = server;
  const client = createClient({ socket: { host, port, reconnectStrategy: 20 }, password, RESP: protocol, ...options });
  client.on("error", () => {}); // a connection that ends is an event too; commands tell what became of them
  return client;
}

async function strings(client, assert) {
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.set("text", "grüße"), "OK");
  assert.equal(await client.get("text"), "grüße");
  assert.equal(await client.get("none"), null);
  assert.equal(await client.set("text", "x", { condition: "NX" }), null);
  assert.equal(await client.set("text", "y", { GET: true }), "grüße");
  const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  await bytes.set(BINARY, BINARY);
  assert.deepEqual(await bytes.get(BINARY), BINARY);
  await bytes.set("large", LARGE);
  assert.ok(LARGE.equals(await bytes.get("large")));
  assert.deepEqual(await client.mGet(["text", "none", "text"]), ["y", null, "y"]);
  assert.equal(await client.exists(["text", "text", "none"]), 2);
  assert.equal(await client.strLen("large"), LARGE.length);
  assert.equal(await client.type("text"), "string");
  assert.equal(await client.getDel("text"), "y");
  assert.equal(await client.unlink(["large", "none"]), 1);
}

async function numbers(client, assert) {
  assert.equal(await client.incr("n"), 1);
  assert.equal(await client.incrBy("n", 41), 42);
  assert.equal(await client.decr("n"), 41);
  assert.equal(Number(await client.incrByFloat("n", 0.5)), 41.5);
  assert.equal(await client.append("log", "one,"), 4);
  assert.equal(await client.append("log", "two"), 7);
  assert.equal(await client.getRange("log", -3, -1), "two");
  assert.equal(await client.setBit("bits", 1000, 1), 0);
  assert.equal(await client.getBit("bits", 1000), 1);
  assert.equal(await client.bitCount("bits"), 1);
  assert.equal(await client.bitPos("bits", 1), 1000);
}

async function expiry(client, assert) {
  await client.set("short", "x", { expiration: { type: "PX", value: 30 } });
  await client.setEx("long", 1000, "x");
  assert.ok((await client.ttl("long")) > 900);
  await until(async () => (await client.get("short")) === null);
  assert.equal(await client.ttl("short"), -2);
  assert.equal(await client.persist("long"), 1);
  assert.equal(await client.ttl("long"), -1);
}

async function errors(client, assert) {
  await client.set("text", "x");
  await refused(client.incr("text"), /^ERR value is not an integer or out of range$/);
  await refused(client.sendCommand(["nosuch", "a"]), /^ERR unknown command 'nosuch', with args beginning with: 'a' $/);
  await refused(client.sendCommand(["get"]), /^ERR wrong number of arguments for 'get' command$/);
  const socket = { host: server.host, port: server.port, reconnectStrategy: false };
  for (const [password, pattern] of [["wrong", /^WRONGPASS /], [undefined, /^NOAUTH /]]) {
    const stranger = connect({ socket, password });
    await refused(stranger.connect().then(() => stranger.get("text")), pattern);
    if (stranger.isOpen) stranger.destroy();
  }
  assert.equal(await client.get("text"), "x");
}

async function pipelines(client, assert) {
  const replies = [];
  for (let i = 0; i < MANY; i++) replies.push(client.set(`p:${i % 50}`, `${i}`), client.get(`p:${i % 50}`));
  const found = await Promise.all(replies);
  for (let i = 0; i < MANY; i++) assert.equal(found[2 * i + 1], `${i}`);
  const block = client.multi();
  for (let i = 0; i < 100; i++) block.incr("counter");
  block.incr("text");
  await refused(block.execAsPipeline(), /^ERR value is not an integer/);
}

async function transactions(client, assert) {
  assert.equal(await client.mSet([["a", "1"], ["b", "2"]]), "OK");
  assert.equal(Number(await client.mSetNX([["b", "3"], ["c", "4"]])), 0);
  assert.deepEqual(await client.multi().incr("a").get("b").get("a").exec(), [2, "2", "2"]);
  const other = connect();
  await other.connect();
  await client.watch("a");
  await other.set("a", "7");
  await refused(client.multi().incr("a").exec(), /watched keys has been changed/);
  assert.equal(await client.rename("a", "d"), "OK");
  assert.equal(Number(await client.copy("d", "a")), 1);
  assert.deepEqual(await client.mGet(["a", "b", "c", "d"]), ["7", "2", null, "7"]);
  await other.close();
}

async function scans(client, assert) {
  const found = new Set();
  for await (const keys of client.scanIterator({ MATCH: "p:*", COUNT: 7 })) for (const key of keys) found.add(key);
  assert.deepEqual([...found].sort(), Array.from({ length: 50 }, (_, i) => `p:${i}`).sort());
  assert.equal((await client.keys("p:1?")).length, 10);
}

async function identity(client, assert) {
  assert.equal(await client.clientGetName(), "web-1");
  const info = await client.clientInfo();
  assert.equal(info.name, "web-1");
  assert.match(info.libName, /^node-redis/);
  assert.equal(await client.clientSetName("web-2"), "OK");
  assert.equal(await client.clientGetName(), "web-2");
  assert.deepEqual({ ...(await client.configGet("maxclients")) }, { maxclients: "10000" });
  assert.equal(info.resp, server.protocol);
  assert.match(await client.info("server"), /redis_version:/);
  assert.equal(await client.dbSize() > 0, true);
}

// Somebody ends the connection: the client comes back by itself, as who it was, and goes on.
async function killed(client, assert) {
  const other = connect();
  await other.connect();
  const id = await client.clientId();
  assert.equal(await other.clientKill({ filter: "ID", id }), 1);
  await until(async () => (await client.clientId().catch(() => id)) !== id);
  assert.equal(await client.clientGetName(), "web-1");
  await other.close();
}

async function outlived(client, assert) {
  await client.set("kept", "yes");
  await client.setEx("kept for long", 1000, "yes");
  await client.del("n");
  await restart();
  await until(() => client.ping().then(() => true, () => false));
  assert.equal(await client.get("kept"), "yes");
  assert.equal(await client.get("n"), null);
  assert.ok((await client.ttl("kept for long")) > 800);
  assert.equal(await client.get("counter"), "100");
  assert.equal(await client.clientGetName(), "web-1");
  assert.equal(await client.incr("counter"), 101);
}

await session(async (assert) => {
  const client = connect({ name: "web-1" });
  await client.connect();
  await run([strings, numbers, expiry, errors, pipelines, transactions, scans, identity, killed, outlived], client, assert);
  await client.close();
});
