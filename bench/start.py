#!/usr/bin/env python3
"""How long a start takes with much in the store: 1,000,000 retained messages, 100,000 durable sessions with 2 subscriptions each,
20 of them with a backlog of 1,000. Filled over MQTT once; the store is kept in `dir` for the next time.

  bench/start.py [dir=/tmp/motemq-filled retained=1000000 sessions=100000 backlogs=20 backlog=1000 payload=64 rounds=3]

Per start: milliseconds from exec to the first accepted CONNECT, CPU seconds until then, peak RSS, size of the file; after an orderly
stop, and after kill -9 of a broker under load (retained messages set anew). The configuration is the default but for one
anonymous listener; queue limits are the default. Last line: JSON.
"""
import json, signal, subprocess, sys, time
from pathlib import Path
from broker import Broker, LISTENER, LOAD, arguments


def start(b, what):
    ms = b.start(limit=600)
    user, system = b.cpu_s()
    r = {"after": what, "ms": ms, "cpu_s": user + system, "peak_kib": b.rss_kib("VmHWM"), "rss_kib": b.rss_kib(),
         "file_mib": (b.dir / "store/store.redb").stat().st_blocks / 2048}
    print(f"start after {what}: {ms:.0f} ms to CONNACK, CPU {user:.2f} s user + {system:.2f} s system, peak RSS {r['peak_kib'] / 1024:.0f} MiB "
          f"(then {r['rss_kib'] / 1024:.0f}), file {r['file_mib']:.0f} MiB", flush=True)
    return r


def kill_under_load(b):
    load = subprocess.Popen([LOAD, "fill", f"port={b.port}", "retained=200000", "sessions=0", "backlogs=0", "payload=64"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    b.stop(signal.SIGKILL)
    load.wait(60)


if __name__ == "__main__":
    o = arguments(dir="/tmp/motemq-filled", retained=1_000_000, sessions=100_000, backlogs=20, backlog=1000, payload=64, rounds=3)
    fill = {k: o[k] for k in ("retained", "sessions", "backlogs", "backlog", "payload")}
    mark = Path(o["dir"]) / "filled.json"
    results = []
    with Broker(conf=LISTENER, dir=o["dir"]) as b:
        if not mark.exists() or json.loads(mark.read_text()) != fill:
            if (b.dir / "store").exists():
                sys.exit(f"{b.dir} holds a store that was filled otherwise: remove it, or name another dir")
            b.start()
            print("filling:", b.load("fill", **fill), f"peak RSS {b.rss_kib('VmHWM') / 1024:.0f} MiB", flush=True)
            b.stop()
            mark.write_text(json.dumps(fill))
        for _ in range(o["rounds"]):
            results.append(start(b, "an orderly stop"))
            b.stop()
        for _ in range(o["rounds"]):
            b.start(limit=600)
            kill_under_load(b)
            results.append(start(b, "kill -9 under load"))
            b.stop()
    print(json.dumps(results))
