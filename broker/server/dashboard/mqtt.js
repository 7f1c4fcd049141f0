// A small MQTT 5 client over WebSocket (OASIS MQTT 5.0): CONNECT, PUBLISH with QoS 0 and 1, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT.
const [CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, , DISCONNECT] =
  Array.from({ length: 14 }, (_, at) => at + 1);
const KEEP_ALIVE_S = 30;
const PACKET_BYTES_MAX = 1 << 20;

const int16 = (value) => [value >> 8, value & 255];
const int32 = (value) => [value >>> 24, (value >> 16) & 255, (value >> 8) & 255, value & 255];
const raw = (bytes) => [int16(bytes.length), bytes];
const text = (value) => {
  const bytes = new TextEncoder().encode(value);
  if (bytes.length > 65535) throw new Error("longer than 65,535 bytes");
  return raw(bytes);
};
function variable(value) {
  const bytes = [];
  do {
    bytes.push((value % 128) | (value > 127 ? 128 : 0));
    value = Math.floor(value / 128);
  } while (value > 0);
  return bytes;
}
function join(parts) {
  const flat = parts.flat(Infinity).map((part) => (typeof part === "number" ? Uint8Array.of(part) : part));
  const all = new Uint8Array(flat.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of flat) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
export function packet(type, flags, ...parts) {
  const body = join(parts);
  return join([(type << 4) | flags, variable(body.length), body]);
}
const properties = (...parts) => {
  const body = join(parts);
  return [variable(body.length), body];
};

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  take(count) {
    if (this.at + count > this.bytes.length) throw new Error("malformed packet");
    return this.bytes.subarray(this.at, (this.at += count));
  }
  byte() { return this.take(1)[0]; }
  int16() { return this.byte() * 256 + this.byte(); }
  int32() { return this.int16() * 65536 + this.int16(); }
  raw() { return this.take(this.int16()); }
  text() { return new TextDecoder().decode(this.raw()); }
  variable() {
    for (let value = 0, factor = 1, count = 0; count < 4; count++, factor *= 128) {
      const byte = this.byte();
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
    throw new Error("malformed length");
  }
  rest() { return this.take(this.bytes.length - this.at); }
  get isOver() { return this.at >= this.bytes.length; }
  // The properties that are shown, by name (MQTT 5 section 2.2.2.2).
  properties() {
    if (this.isOver) return {};
    const end = this.variable() + this.at, found = {};
    while (this.at < end) {
      const id = this.byte();
      const name = NAMES[id] ?? "property_" + id;
      if ([1, 23, 25, 36, 37, 40, 41, 42].includes(id)) found[name] = this.byte();
      else if ([19, 33, 34, 35].includes(id)) found[name] = this.int16();
      else if ([2, 17, 24, 39].includes(id)) found[name] = this.int32();
      else if (id === 11) found[name] = this.variable();
      else if (id === 9 || id === 22) found[name] = this.raw();
      else if (id === 38) (found.user ??= []).push([this.text(), this.text()]);
      else found[name] = this.text();
    }
    return found;
  }
}
const NAMES = { 2: "message_expiry_s", 3: "content_type", 8: "response_topic", 18: "client_id", 31: "reason", 36: "qos_max", 39: "packet_bytes_max" };

export class MqttClient {
  // `on`: message(publish), closed(why)
  constructor(url, token, on) {
    this.on = on;
    this.next = 1;
    this.waiting = new Map();
    this.input = new Uint8Array();
    this.opened = new Promise((resolve, reject) => (this.connack = { resolve, reject }));
    this.socket = new WebSocket(url, "mqtt");
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.send(packet(CONNECT, 0, text("MQTT"), 5, 0xc2, int16(KEEP_ALIVE_S),
      properties(17, int32(0), 33, int16(64), 39, int32(PACKET_BYTES_MAX)), text(""), text("dashboard"), raw(new TextEncoder().encode(token))));
    this.socket.onmessage = (event) => {
      try {
        this.feed(new Uint8Array(event.data));
      } catch (error) {
        this.end(error.message);
      }
    };
    this.socket.onclose = () => this.end(this.why ?? "the connection was closed");
  }

  feed(bytes) {
    this.input = join([this.input, bytes]);
    for (;;) {
      const reader = new Reader(this.input);
      if (this.input.length < 2) return;
      const head = reader.byte();
      let length;
      try {
        length = reader.variable();
      } catch (error) {
        if (this.input.length >= 5) throw error;
        return;
      }
      if (length > PACKET_BYTES_MAX) throw new Error("a packet is too large");
      if (this.input.length < reader.at + length) return;
      const body = reader.take(length);
      this.input = this.input.slice(reader.at);
      this.handle(head >> 4, head & 15, new Reader(body));
    }
  }

  handle(type, flags, body) {
    if (type === CONNACK) {
      body.byte();
      const code = body.byte(), found = body.properties();
      if (code) return this.end(found.reason ?? `refused with reason code 0x${code.toString(16)}`);
      this.timer = setInterval(() => this.send(packet(PINGREQ, 0)), KEEP_ALIVE_S * 700);
      this.clientId = found.client_id;
      this.connack.resolve(this);
    } else if (type === PUBLISH) {
      const qos = (flags >> 1) & 3, topic = body.text(), id = qos ? body.int16() : 0;
      const found = body.properties();
      if (qos === 1) this.send(packet(PUBACK, 0, int16(id)));
      if (qos === 2) this.send(packet(PUBREC, 0, int16(id)));
      this.on.message({ topic, qos, isRetained: (flags & 1) === 1, payload: body.rest(), properties: found });
    } else if (type === PUBREL) {
      this.send(packet(PUBCOMP, 0, int16(body.int16())));
    } else if ([PUBACK, SUBACK, UNSUBACK].includes(type)) {
      const id = body.int16(), codes = [];
      let reason;
      if (type === PUBACK) {
        codes.push(body.isOver ? 0 : body.byte());
        reason = body.properties().reason;
      } else {
        reason = body.properties().reason;
        codes.push(...body.rest());
      }
      const { resolve, reject } = this.waiting.get(id) ?? {};
      this.waiting.delete(id);
      const bad = codes.find((code) => code >= 128);
      if (bad) reject?.(new Error(reason ?? `refused with reason code 0x${bad.toString(16)}`));
      else resolve?.(codes);
    } else if (type === DISCONNECT) {
      const code = body.isOver ? 0 : body.byte();
      this.why = body.properties().reason ?? `the broker ended it with reason code 0x${code.toString(16)}`;
    }
  }

  send(bytes) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(bytes);
  }

  ask(type, flags, ...parts) {
    do this.next = (this.next % 65535) + 1; while (this.waiting.has(this.next));
    const id = this.next;
    const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.send(packet(type, flags, ...parts.map((part) => (part === ID ? int16(id) : part))));
    return answer;
  }

  publish({ topic, payload, qos, retain }) {
    const flags = (qos << 1) | (retain ? 1 : 0), bytes = new TextEncoder().encode(payload);
    if (qos) return this.ask(PUBLISH, flags, text(topic), ID, properties(), bytes);
    this.send(packet(PUBLISH, flags, text(topic), properties(), bytes));
    return Promise.resolve([0]);
  }
  subscribe(filter, qos) { return this.ask(SUBSCRIBE, 2, ID, properties(), text(filter), qos); }
  unsubscribe(filter) { return this.ask(UNSUBSCRIBE, 2, ID, properties(), text(filter)); }

  close() {
    this.why = "signed off";
    this.send(packet(DISCONNECT, 0));
    this.end(this.why);
  }

  end(why) {
    if (this.isOver) return;
    this.isOver = true;
    clearInterval(this.timer);
    this.socket.close();
    const error = new Error(why);
    this.connack.reject(error);
    for (const { reject } of this.waiting.values()) reject(error);
    this.on.closed(why);
  }
}
const ID = Symbol("packet identifier");
