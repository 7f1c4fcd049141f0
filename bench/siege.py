#!/usr/bin/env python3
"""A siege of half-open connections (attack class D1), and a bystander who connects all the while.

  bench/siege.py [sockets=18000 processes=4 seconds=15 reopen=1 sources=1 tls=0]

`processes` attackers together hold up to `sockets` connections: one says nothing, one sends a byte, one half a CONNECT, one (with tls=1, to a
TLS listener: half a ClientHello). With reopen=1 what the broker closes is opened again at once. They come from `sources` loopback addresses;
the bystander from 127.0.0.1 too, ten times a second. With tls=1 the bystander does a full TLS handshake. Reported: the bystander's times
from connect to CONNACK in milliseconds, its attempts that failed (it tries again after 50 ms: `late` counts wishes that took over a second
with that), and what the broker used. `ulimit -n` must allow sockets / processes each. Last line: JSON.
"""
import json, multiprocessing, os, resource, select, socket, ssl, time
from broker import LISTENER, Broker, accepts, arguments, certificates

HALVES = [b"", b"\x10", b"\x10\x7f\x00\x04MQTT\x04\x02", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20)]
CONNECT = b"\x10\x15\x00\x04MQTT\x04\x02\x00\x3c\x00\x09bystander"


def attack(port, count, sources, reopen, opened, start, stop):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    poll, own, mine = select.epoll(), {}, 0
    start.wait()
    while not stop.is_set():
        for _ in range(200):
            if len(own) >= count:
                break
            s = socket.socket()
            s.setblocking(False)
            if sources > 1:
                n = (os.getpid() * 7919 + mine) % sources
                s.bind((f"127.{1 + n // 65536}.{n // 256 % 256}.{1 + n % 254}", 0))
            s.connect_ex(("127.0.0.1", port))
            own[s.fileno()] = (s, mine % 4)
            poll.register(s.fileno(), select.EPOLLOUT | select.EPOLLIN | select.EPOLLRDHUP)
            mine += 1
        for fd, what in poll.poll(0.01 if len(own) >= count else 0):
            s, half = own[fd]
            if what & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
                poll.unregister(fd)
                s.close()
                del own[fd]
                if not reopen:
                    count -= 1
            elif what & select.EPOLLOUT:
                try:
                    s.send(HALVES[half]) if HALVES[half] else None
                    poll.modify(fd, select.EPOLLIN | select.EPOLLRDHUP)
                except OSError:
                    pass
        opened.value = mine


def once(port, context):
    began = time.perf_counter()
    try:
        s = socket.create_connection(("127.0.0.1", port), 5)
        if context:
            s = context.wrap_socket(s, server_hostname="localhost")
        s.sendall(CONNECT)
        ok = s.recv(4) == b"\x20\x02\x00\x00"
        s.close()
        why = "" if ok else "closed"
    except OSError as error:
        why = type(error).__name__
    return why, (time.perf_counter() - began) * 1000


def main():
    o = arguments(sockets=18000, processes=4, seconds=15, reopen=1, sources=1, tls=0, limits="")
    with Broker(conf="") as b:
        config = b.dir / "own.toml"
        text = config.read_text() + f"[limits]\n{o['limits']}\n" + LISTENER.replace("PORT", str(b.port))
        context = None
        if int(o["tls"]):
            (ca, cert, key), _ = certificates(b.dir)
            text += f'[listeners.tls]\ncert = "{cert}"\nkey = "{key}"\n'
            context = ssl.create_default_context(cafile=ca)
        config.write_text(text)
        b.start(ready=accepts)
        start, stop = multiprocessing.Event(), multiprocessing.Event()
        opened = [multiprocessing.Value("Q", 0) for _ in range(o["processes"])]
        each = o["sockets"] // o["processes"]
        attackers = [multiprocessing.Process(target=attack, args=(b.port, each, o["sources"], int(o["reopen"]), n, start, stop)) for n in opened]
        [a.start() for a in attackers]
        cpu, began = sum(b.cpu_s()), time.perf_counter()
        start.set()
        times, wishes, failed = [], [], {}
        while time.perf_counter() - began < o["seconds"]:
            wished = time.perf_counter()
            while True:
                why, ms = once(b.port, context)
                if not why or time.perf_counter() - began > o["seconds"] + 10:
                    break
                failed[why] = failed.get(why, 0) + 1
                time.sleep(0.05)
            if not why:
                times.append(ms)
            wishes.append((time.perf_counter() - wished) * 1000)
            time.sleep(0.1)
        took = time.perf_counter() - began
        peak = b.rss_kib("VmHWM")
        cpu = sum(b.cpu_s()) - cpu
        stop.set()
        [a.join(5) or a.kill() for a in attackers]
        times.sort(), wishes.sort()
        r = {"opened": sum(n.value for n in opened), "opened_per_s": sum(n.value for n in opened) / took, "wishes": len(wishes), "failed_attempts": failed,
             "p50_ms": times[len(times) // 2] if times else None, "max_ms": times[-1] if times else None, "wish_max_ms": wishes[-1],
             "late": sum(w > 1000 for w in wishes), "broker_cpu_s": cpu, "peak_kib": peak}
        print({k: round(v, 1) if isinstance(v, float) else v for k, v in r.items()})
        print(json.dumps(r))


if __name__ == "__main__":
    main()
