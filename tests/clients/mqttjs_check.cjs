// MQTT.js: mqttjs_check.cjs 3.1.1|5 tcp|tls|ws|wss PORT [CA CERTIFICATE KEY], with NODE_PATH where `npm ci` put it.
// The checks are those of checks.py, and so is the output.
"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const mqtt = require("mqtt");

const PATIENCE_MS = 10_000;
const WS_PATH = "/mqtt";
const [version, over, port, ca, certificate, key] = process.argv.slice(2);
const is5 = version === "5";
const NAME = "MQTT.js";
const SUBSCRIPTION_ID = 268435455;
const PROPERTIES = {
  payloadFormatIndicator: true,
  messageExpiryInterval: 600,
  contentType: "text/plain",
  responseTopic: "answers/7",
  correlationData: Buffer.from("question-7"),
  userProperties: { unit: ["kWh", "again"] },
};

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} does not arrive`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

class Client {
  received = [];
  waiting = [];

  static async connect(clientId, { durable = false, will, topicAliasMaximum } = {}) {
    const self = new Client();
    const scheme = { tcp: "mqtt", tls: "mqtts", ws: "ws", wss: "wss" }[over];
    const files = ca
      ? { ca: fs.readFileSync(ca), cert: fs.readFileSync(certificate), key: fs.readFileSync(key) }
      : {};
    self.client = mqtt.connect(`${scheme}://localhost:${port}${over.startsWith("ws") ? WS_PATH : ""}`, {
      clientId,
      protocolVersion: is5 ? 5 : 4,
      clean: !durable,
      reconnectPeriod: 0,
      will,
      ...(is5 ? { properties: { sessionExpiryInterval: durable ? 3600 : 0, topicAliasMaximum } } : {}),
      ...files,
    });
    // Before CONNACK: what a session kept comes right behind it.
    self.client.on("message", (topic, payload, packet) => {
      const message = { ...packet, topic, payload };
      const waiting = self.waiting.shift();
      if (waiting) waiting(message);
      else self.received.push(message);
    });
    const connack = await within(
      new Promise((resolve, reject) => {
        self.client.once("connect", resolve);
        self.client.once("error", reject);
      }),
      "CONNACK",
    );
    self.client.on("error", () => {});
    self.sessionPresent = connack.sessionPresent;
    return self;
  }

  async subscribe(filter, qos, subscriptionIdentifier) {
    const options = { qos };
    if (is5 && subscriptionIdentifier) options.properties = { subscriptionIdentifier };
    const granted = await within(this.client.subscribeAsync(filter, options), "SUBACK");
    assert.deepStrictEqual(granted.map((one) => one.qos), [qos], "SUBACK");
  }

  async unsubscribe(filter) {
    await within(this.client.unsubscribeAsync(filter), "UNSUBACK");
  }

  async publish(topic, payload, qos, retain = false) {
    const options = { qos, retain, ...(is5 ? { properties: PROPERTIES } : {}) };
    await within(this.client.publishAsync(topic, payload, options), `acknowledgement at QoS ${qos}`);
  }

  async receive(what) {
    if (this.received.length > 0) return this.received.shift();
    return within(new Promise((resolve) => this.waiting.push(resolve)), what);
  }

  // Without DISCONNECT.
  async drop() {
    const closed = new Promise((resolve) => this.client.once("close", resolve));
    this.client.stream.destroy();
    await within(closed, "the end of the connection");
  }

  async leave() {
    await within(this.client.endAsync(!this.client.connected), "the end");
  }
}

function same(got, expected, what) {
  assert.deepStrictEqual(got, expected, what);
}

function checkProperties(message) {
  if (!is5) return;
  const { messageExpiryInterval: left, userProperties, ...got } = message.properties;
  const { messageExpiryInterval: sent, userProperties: _, ...expected } = PROPERTIES;
  same(got, expected, "properties");
  same({ ...userProperties }, PROPERTIES.userProperties, "user properties");
  assert(left <= sent && left >= sent - PATIENCE_MS / 1000, `message expiry ${left}`);
}

const text = (message) => message.payload.toString();

const checks = {
  async live(topic, connect) {
    const [subscriber, publisher] = [await connect("subscriber"), await connect("publisher")];
    same(subscriber.sessionPresent, false, "session present");
    await subscriber.subscribe(topic, 2);
    const large = Buffer.alloc(102400, "0123456789abcdef");
    for (const qos of [0, 1, 2]) {
      for (const payload of [Buffer.from(`at ${qos}`), large]) {
        await publisher.publish(topic, payload, qos);
        const message = await subscriber.receive(`QoS ${qos}`);
        same([message.topic, message.qos, message.retain], [topic, qos, false], "live");
        assert(message.payload.equals(payload), `payload at QoS ${qos}`);
        checkProperties(message);
      }
    }
  },

  async granted_qos(topic, connect) {
    const [subscriber, publisher] = [await connect("subscriber"), await connect("publisher")];
    await subscriber.subscribe(topic, 1);
    for (const qos of [0, 1, 2]) {
      await publisher.publish(topic, `${qos}`, qos);
      const message = await subscriber.receive(`QoS ${qos}`);
      same([text(message), message.qos], [`${qos}`, Math.min(qos, 1)], "granted QoS");
    }
  },

  async retained(topic, connect) {
    const publisher = await connect("publisher");
    await publisher.publish(topic, "old", 1, true);
    await publisher.publish(topic, "kept", 1, true);
    const late = await connect("late");
    await late.subscribe(topic, 2);
    let message = await late.receive("the retained message");
    same([message.topic, text(message), message.qos, message.retain], [topic, "kept", 1, true], "retained");
    checkProperties(message);
    await publisher.publish(topic, "", 1, true);
    message = await late.receive("the message that clears it");
    same([text(message), message.retain], ["", false], "clearing");
    const later = await connect("later");
    await later.subscribe(topic, 2);
    await publisher.publish(topic, "live", 1);
    message = await later.receive("the live message");
    same([text(message), message.retain], ["live", false], "after clearing");
  },

  async will(topic, connect) {
    const watcher = await connect("watcher");
    await watcher.subscribe(topic, 2);
    const victim = await connect("victim", { will: { topic, payload: Buffer.from("gone"), qos: 1, retain: false } });
    await victim.drop();
    let message = await watcher.receive("the will");
    same([message.topic, text(message), message.qos], [topic, "gone", 1], "will");
    const will = { topic, payload: Buffer.from("must not come"), qos: 1, retain: false };
    await (await connect("polite", { will })).leave();
    await watcher.publish(topic, "marker", 1);
    message = await watcher.receive("the marker");
    same(text(message), "marker", "after DISCONNECT");
  },

  async wildcard(topic, connect) {
    const publisher = await connect("publisher");
    const filters = [`${topic}/+/c`, `${topic}/#`];
    const subscribers = [];
    for (const filter of filters) {
      const subscriber = await connect(`subscriber-${subscribers.length}`);
      await subscriber.subscribe(filter, 2, SUBSCRIPTION_ID);
      subscribers.push(subscriber);
    }
    const names = ["", "/a/c", "/a/b", "//c", "/a/b/c", "/z/c"];
    for (const name of names) await publisher.publish(topic + name, name, 2);
    await publisher.publish(`${topic}x/a/c`, "not below it", 2);
    await publisher.publish(`${topic}/end/c`, "/end/c", 2);
    const expected = [["/a/c", "//c", "/z/c", "/end/c"], [...names, "/end/c"]];
    for (const [index, filter] of filters.entries()) {
      for (const name of expected[index]) {
        const message = await subscribers[index].receive(name);
        same([message.topic, text(message)], [topic + name, name], filter);
        if (is5) same(message.properties.subscriptionIdentifier, SUBSCRIPTION_ID, "subscription identifier");
      }
    }
  },

  async unsubscribe(topic, connect) {
    const client = await connect("client");
    await client.subscribe(`${topic}/a`, 2);
    await client.subscribe(`${topic}/b`, 2);
    await client.publish(`${topic}/a`, "before", 2);
    same(text(await client.receive("before")), "before", "before");
    await client.unsubscribe(`${topic}/a`);
    await client.publish(`${topic}/a`, "after", 2);
    await client.publish(`${topic}/b`, "marker", 2);
    same(text(await client.receive("the marker")), "marker", "after UNSUBSCRIBE");
  },

  async resume(topic, connect) {
    let subscriber = await connect("durable", { durable: true });
    same(subscriber.sessionPresent, false, "session present");
    await subscriber.subscribe(topic, 2);
    await subscriber.drop();
    const publisher = await connect("publisher");
    for (let number = 0; number < 50; number += 1) await publisher.publish(topic, `${number}`, 1 + (number % 2));
    subscriber = await connect("durable", { durable: true });
    same(subscriber.sessionPresent, true, "session present");
    const messages = [];
    while (messages.length < 50) messages.push(await subscriber.receive(`queued message ${messages.length}`));
    await publisher.publish(topic, "marker", 2);
    same(text(await subscriber.receive("the marker")), "marker", "more than was queued");
    for (const qos of [1, 2]) {
      const numbers = messages.filter((message) => message.qos === qos).map((message) => Number(text(message)));
      same(numbers, Array.from({ length: 25 }, (_, index) => 2 * index + qos - 1), `order at QoS ${qos}`);
    }
    messages.forEach(checkProperties);
  },

  // Each message goes to one member of the group, and to everybody else.
  async shared(topic, connect) {
    const members = [await connect("member-0"), await connect("member-1")];
    // With topic aliases, and at QoS 1: at QoS 2 MQTT.js 5.16 forgets the topic that an alias stands for.
    const [other, publisher] = [await connect("other", { topicAliasMaximum: 10 }), await connect("publisher")];
    for (const member of members) await member.subscribe(`$share/group/${topic}`, 2);
    await other.subscribe(topic, 1);
    for (let number = 0; number < 30; number += 1) await publisher.publish(topic, `${number}`, 1 + (number % 2));
    let aliases = 0;
    for (let number = 0; number < 30; number += 1) {
      const message = await other.receive(`message ${number}`);
      same(message.topic, topic, "topic");
      if (message.properties?.topicAlias) aliases += 1;
    }
    assert(!is5 || aliases > 20, `${aliases} messages with a topic alias`);
    // The marker is no message of the group, and comes behind those that the member has been given.
    for (const member of members) await member.subscribe(`${topic}/marker`, 2);
    await publisher.publish(`${topic}/marker`, "marker", 2);
    const shares = [];
    for (const member of members) {
      const got = [];
      while (got.at(-1) !== "marker") got.push(text(await member.receive("the marker")));
      shares.push(got.slice(0, -1).map(Number));
    }
    assert(shares.every((share) => share.length > 0), `a member without messages: ${JSON.stringify(shares)}`);
    same(shares.flat().sort((a, b) => a - b), Array.from({ length: 30 }, (_, index) => index), "shared");
    for (const member of members) await member.unsubscribe(`$share/group/${topic}`);
  },
};

async function main() {
  // Sessions of an earlier run must not be found.
  const prefix = `${NAME}/${version}/${over}/${process.pid}-${Date.now()}`;
  for (const [check, perform] of Object.entries(checks)) {
    const what = { client: NAME, version, over, check };
    const open = [];
    try {
      await perform(`${prefix}/${check}`, async (who, options) => {
        const client = await Client.connect(`${prefix}-${who}`, options);
        open.push(client);
        return client;
      });
      for (const client of open) await client.leave();
    } catch (error) {
      console.log(JSON.stringify({ ...what, failed: String(error) }));
      console.error(error);
      process.exit(1);
    }
    console.log(JSON.stringify(what));
  }
  process.exit(0);
}

main();
