#!/usr/bin/env python3
"""Durable into offline sessions: QoS 1 publishers, each with a topic, each topic with a durable session that is not connected.

  bench/offline.py [publishers=200 sessions=200 window=1,4 seconds=20 payload=64 sync_ms=0 rounds=1]

Per window (unacknowledged messages per publisher): acknowledgements a second, their latency, CPU per message, and the bytes written
to disk per byte of topic and payload, at the end of the load and once folding has come to rest. The limits of bench/start.sh apply
(queue_messages_max 1,000,000 instead of 10,000, so that nothing is dropped). Last line: JSON.
"""
import json, time
from broker import Broker, arguments


def calm(b):
    """Waits until the broker writes nothing for a second; bytes written until then."""
    was = -1
    while was != b.written():
        was = b.written()
        time.sleep(1)
    return was


def run(o, window):
    with Broker(env={"MOTEMQ_INJECT_SYNC_MS": str(o["sync_ms"])}) as b:
        b.start()
        base, cpu = b.written(), sum(b.cpu_s())
        r = b.load("offline", window=window, **{k: o[k] for k in ("publishers", "sessions", "seconds", "payload")})
        cpu = sum(b.cpu_s()) - cpu
        rest = calm(b) - base
        r |= {"window": window, "cpu_us": cpu / r["acked"] * 1e6, "amplification": r["written_bytes"] / r["useful_bytes"],
              "amplification_at_rest": rest / r["useful_bytes"], "peak_kib": b.rss_kib("VmHWM")}
        print(f"{o['publishers']} publishers, window {window}: {r['rate']:,.0f} acknowledgements/s, p50 {r['p50_us'] / 1000:.1f} ms, "
              f"p99 {r['p99_us'] / 1000:.1f} ms, p99.9 {r['p999_us'] / 1000:.1f} ms, CPU {r['cpu_us']:.1f} us each, bytes written per byte of "
              f"topic and payload {r['amplification']:.2f} (at rest {r['amplification_at_rest']:.2f}), peak RSS {r['peak_kib'] / 1024:.0f} MiB", flush=True)
        return r


if __name__ == "__main__":
    o = arguments(publishers=200, sessions=200, window="1,4", seconds=20, payload=64, sync_ms=0, rounds=1)
    print(json.dumps([run(o, int(w)) for _ in range(o["rounds"]) for w in o["window"].split(",")]))
