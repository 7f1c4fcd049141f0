#!/usr/bin/env python3
"""What a scrape of /metrics costs the broker, and which series there are, with one client and with many.

  bench/scrape.py [clients=10000 scrapes=200]

Each client subscribes to one topic of its own and publishes to it, so that every sum over the connections has something in it. CPU
is the broker's while it is scraped minus what it takes in as long a time without. The series (names with their labels) must be the
same ones both times: exit 1 when they are not. Last line: JSON.
"""
import json, socket, struct, sys, time, urllib.request
from broker import LISTENER, Broker, arguments, connack, free_port


def text(s):
    return struct.pack(">H", len(s)) + s.encode()


def client(port, number):
    s = socket.create_connection(("127.0.0.1", port), 30)
    connect = text("MQTT") + b"\x04\x02\x00\x00" + text(f"client-{number}")
    topic = text(f"site/{number}/power")
    subscribe, publish = b"\x00\x01" + topic + b"\x01", topic + b"\x00\x02" + b"12345678"
    for kind, body in (b"\x10", connect), (b"\x82", subscribe), (b"\x32", publish):
        s.sendall(kind + bytes([len(body)]) + body)
    return s


def answered(s):
    """CONNACK, SUBACK, PUBACK and the publish are 4 + 5 + 4 and more bytes; the publish is acknowledged."""
    got = b""
    while len(got) < 13 or b"12345678" not in got:
        got += s.recv(4096)
    at = got.index(b"12345678") - 2
    s.sendall(b"\x40\x02" + got[at:at + 2])


def scrape(http):
    with urllib.request.urlopen(f"http://127.0.0.1:{http}/metrics") as answer:
        return answer.read().decode()


def series(page):
    return {line.rsplit(" ", 1)[0] for line in page.splitlines() if not line.startswith("#")}


def cpu_ms(broker, work):
    """CPU of the broker for `work`, without what it takes when it is left alone; in milliseconds."""
    before, began = sum(broker.cpu_s()), time.monotonic()
    work()
    busy, took = sum(broker.cpu_s()) - before, time.monotonic() - began
    before = sum(broker.cpu_s())
    time.sleep(took)
    return (busy - (sum(broker.cpu_s()) - before)) * 1000


def main():
    o = arguments(clients=10000, scrapes=200)
    http = free_port()
    with Broker(conf="") as b:
        config = b.dir / "own.toml"
        text_of = config.read_text().replace('bind = ""', f'bind = "127.0.0.1:{http}"')
        config.write_text(text_of + LISTENER.replace("PORT", str(b.port)))
        b.start(ready=connack)
        clients, results, pages = [], [], {}
        for count in 1, o["clients"]:
            rss = b.rss_kib()
            new = [client(b.port, number) for number in range(len(clients), count)]
            for s in new:
                answered(s)
            clients += new
            time.sleep(2)
            grown = b.rss_kib() - rss
            pages[count] = page = scrape(http)
            ms = cpu_ms(b, lambda: [scrape(http) for _ in range(o["scrapes"])]) / o["scrapes"]
            r = {"clients": count, "scrape_cpu_ms": round(ms, 3), "series": len(series(page)), "page_bytes": len(page),
                 "rss_bytes_per_client": round(grown * 1024 / max(1, len(new)))}
            results.append(r)
            print(", ".join(f"{k} {v}" for k, v in r.items()), flush=True)
        print(json.dumps(results))
        first, last = (series(pages[count]) for count in (1, o["clients"]))
        if first != last:
            sys.exit(f"other series: {sorted(first ^ last)}")


main()
