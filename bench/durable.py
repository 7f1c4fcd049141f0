#!/usr/bin/env python3
"""What durability costs, measured from outside, with raw MQTT 3.1.1 packets:

  bench/durable.py quiet       what must not touch the disk: QoS 0, idle clients, clean sessions at QoS 1
  bench/durable.py sequential  one QoS 1 publisher, one message at a time, into an offline session

MOTEMQ_BIN names the binary (default target/release/motemq). Loopback only; ends what it starts.
"""
import os, socket, sys, tempfile, time
from broker import LISTENER, Broker, accepts


def varint(n):
    out = bytearray()
    while True:
        n, low = n >> 7, n & 127
        out.append(low | (128 if n else 0))
        if not n:
            return bytes(out)


def packet(kind, body):
    return bytes([kind]) + varint(len(body)) + body


def text(s):
    return len(s).to_bytes(2, "big") + s.encode()


def connect(client, clean=True):
    return packet(0x10, text("MQTT") + bytes([4, 2 if clean else 0, 0, 0]) + text(client))


def publish(topic, payload, qos=0, pid=0):
    return packet(0x30 | qos << 1, text(topic) + (pid.to_bytes(2, "big") if qos else b"") + payload)


class Client:
    def __init__(self, port, name, clean=True):
        self.s = socket.create_connection(("127.0.0.1", port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.s.sendall(connect(name, clean))
        self.read(4)

    def read(self, n):
        got = b""
        while len(got) < n:
            more = self.s.recv(n - len(got))
            assert more, "the broker closed the connection"
            got += more
        return got

    def subscribe(self, filter, qos):
        self.s.sendall(packet(0x82, b"\0\1" + text(filter) + bytes([qos])))
        self.read(5)


def broker(sync_ms=0):
    b = Broker(conf=LISTENER, env={"MOTEMQ_INJECT_SYNC_MS": str(sync_ms)})
    b.start(ready=accepts)
    return b


def quiet():
    b = broker()
    time.sleep(0.5)
    base = b.written()
    idle = [Client(b.port, f"idle{i}") for i in range(1000)]
    sub = Client(b.port, "sub")
    sub.subscribe("t/#", 1)
    pub = Client(b.port, "pub")
    burst = publish("t/0", b"x" * 32) * 100
    size = len(publish("t/0", b"x" * 32))
    for _ in range(1000):
        pub.s.sendall(burst)
        sub.read(size * 100)
    print(f"1,000 idle clients, 100,000 QoS 0 messages: {b.written() - base} bytes written")
    base = b.written()
    for i in range(5000):
        pub.s.sendall(publish("t/1", b"x" * 32, 1, i % 65535 + 1))
        pub.read(4)
        got = sub.read(len(publish("t/1", b"x" * 32, 1, 1)))
        sub.s.sendall(b"\x40\x02" + got[7:9])
    time.sleep(1)
    print(f"5,000 QoS 1 messages between clean sessions: {b.written() - base} bytes written")
    del idle
    b.close()


def fsync_us(n=300):
    """This disk's own cost of writing 4 KiB and fdatasync, in microseconds: p50, p99."""
    fd, path = tempfile.mkstemp(dir=os.environ.get("TMPDIR", "/tmp"))
    times = []
    for i in range(n):
        t = time.perf_counter()
        os.pwrite(fd, b"x" * 4096, i * 4096)
        os.fdatasync(fd)
        times.append((time.perf_counter() - t) * 1e6)
    os.close(fd)
    os.unlink(path)
    times.sort()
    return times[n // 2], times[n * 99 // 100]


def sequential():
    for sync_ms in (0, 5, 20, 50):
        p50, p99 = fsync_us()
        b = broker(sync_ms)
        Client(b.port, "sleeper", clean=False).subscribe("t/#", 1)
        pub = Client(b.port, "pub")
        time.sleep(0.3)
        base, n, t = b.written(), 0, time.perf_counter()
        lat = []
        while time.perf_counter() - t < 4:
            n += 1
            t1 = time.perf_counter()
            pub.s.sendall(publish("t/0", b"x" * 32, 1, n % 65535 + 1))
            pub.read(4)
            lat.append((time.perf_counter() - t1) * 1e6)
        took = time.perf_counter() - t
        lat.sort()
        print(f"injected sync {sync_ms:2} ms: {n / took:7.0f} acknowledgements/s, p50 {lat[n // 2]:.0f} us, p99 {lat[n * 99 // 100]:.0f} us, "
              f"{(b.written() - base) / n:.0f} bytes written each (the disk alone: write 4 KiB + fdatasync p50 {p50:.0f} us, p99 {p99:.0f} us)")
        b.close()


if __name__ == "__main__":
    {"quiet": quiet, "sequential": sequential}[sys.argv[1] if len(sys.argv) > 1 else "sequential"]()
