#!/usr/bin/env python3
"""A fleet of mutual-TLS devices that comes back after a crash: each has a durable session and one subscription; the broker is killed
with -9 and started again, and every device reconnects as soon as it can (100 ms pause after a failed attempt).

  bench/fleet.py [devices=10000 resume=1,0 rounds=1 limits=]

With resume=1 devices offer their TLS session, with 0 they have none: full handshakes. Reported: seconds from the first lost
connection until 50, 99 and 100 % have a CONNACK with session present, when the first was let in, handshakes resumed, attempts refused
(nobody listening) and broken off (limits.unauthenticated_max). Client and broker share the machine. `ulimit -n` must allow both their
sockets. The configuration is the default but for one listener with client certificates; `limits` is text for its section, such as
limits=unauthenticated_max=20000. Last line: JSON.
"""
import json, resource, signal, subprocess, sys, time
from broker import LISTENER, LOAD, Broker, accepts, arguments, certificates


def run(o, resume):
    listener = f"[limits]\n{o['limits']}\n{LISTENER}"
    with Broker(conf="") as b:
        (ca, cert, key), device = certificates(b.dir)
        config = b.dir / "own.toml"
        tls = f'[listeners.tls]\ncert = "{cert}"\nkey = "{key}"\nclient_ca = "{ca}"\nclient_cert = "required"\nidentity = "none"\n'
        config.write_text(config.read_text() + listener.replace("PORT", str(b.port)) + tls)
        b.start(ready=accepts)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        names = dict(zip(("ca", "cert", "key"), device))
        load = subprocess.Popen([LOAD, "fleet", f"port={b.port}", f"devices={o['devices']}", f"resume={resume}", *(f"{k}={v}" for k, v in names.items())],
                                stdout=subprocess.PIPE, text=True)
        if load.stdout.readline() != "ready\n":
            sys.exit("the devices could not connect")
        time.sleep(2)
        before = sum(b.cpu_s()), b.rss_kib()
        b.stop(signal.SIGKILL)
        b.start(ready=None)
        r = load.stdout.readline()
        if load.wait() != 0:
            sys.exit("load fleet failed")
        r = json.loads(r) | {"resume": resume, "broker_cpu_s": sum(b.cpu_s()), "rss_kib": b.rss_kib(), "peak_kib": b.rss_kib("VmHWM")}
        s = lambda ms: "never" if ms is None else f"{ms / 1000:.2f} s"
        print(f"{r['devices']} devices, {'offering their TLS session' if resume else 'full handshakes'}: 50 % back after {s(r['p50_ms'])}, 99 % after {s(r['p99_ms'])}, "
              f"all after {s(r['all_ms'])}, the first after {s(r['first_ms'])}; {r['resumed']} resumed, {r['absent']} without session, {r['refused']} attempts refused, "
              f"{r['broken']} broken off ({r['reason'] or 'none'}); broker CPU {r['broker_cpu_s']:.1f} s, RSS {r['rss_kib'] / 1024:.0f} MiB", flush=True)
        return r


if __name__ == "__main__":
    o = arguments(devices=10000, resume="1,0", rounds=1, limits="")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20000), hard))
    print(json.dumps([run(o, int(r)) for _ in range(o["rounds"]) for r in o["resume"].split(",")]))
