#!/usr/bin/env python3
"""What a small machine needs: resident memory at start, and the peak with 1,000 TLS clients that talk a little (each publishes 64 bytes
at QoS 1 once a second to its own topic; every tenth subscribes to one).

  bench/small.py [clients=1000 seconds=30 mtls=0 rounds=1]

The store is on; the configuration is the default but for one TLS listener. Last line: JSON.
"""
import json, time
from broker import LISTENER, Broker, accepts, arguments, certificates


def run(o):
    with Broker(conf="") as b:
        (ca, cert, key), device = certificates(b.dir)
        config = b.dir / "own.toml"
        mutual = f'client_ca = "{ca}"\nclient_cert = "required"\nidentity = "none"\n' if o["mtls"] else ""
        config.write_text(config.read_text() + LISTENER.replace("PORT", str(b.port))
                          + f'[listeners.tls]\ncert = "{cert}"\nkey = "{key}"\n{mutual}')
        b.start(ready=accepts)
        time.sleep(1)
        at_start, cpu = b.rss_kib(), sum(b.cpu_s())
        names = dict(zip(("ca", "cert", "key"), device)) if o["mtls"] else {"ca": ca}
        r = b.load("chatter", clients=o["clients"], seconds=o["seconds"], **names)
        r |= {"start_kib": at_start, "peak_kib": b.rss_kib("VmHWM"), "cpu_s": sum(b.cpu_s()) - cpu}
        print(f"at start {at_start / 1024:.1f} MiB; {o['clients']} TLS clients, {r['acked']} messages in {o['seconds']} s: peak {r['peak_kib'] / 1024:.1f} MiB, "
              f"{r['delivered']} delivered, PUBACK p50 {r['p50_us']} us, p99 {r['p99_us']} us, CPU {r['cpu_s']:.1f} s", flush=True)
        return r


if __name__ == "__main__":
    o = arguments(clients=1000, seconds=30, mtls=0, rounds=1)
    print(json.dumps([run(o) for _ in range(o["rounds"])]))
