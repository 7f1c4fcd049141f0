#!/usr/bin/env python3
"""Bytes on the wire per delivered reading, our broker beside mosquitto, with the same simulated devices: mutual TLS 1.3, P-256, QoS 1.

  bench/bytes.py [devices=20 every=10s duration=2m links=nb-iot,gprs,lte-m,6lowpan kills=0,3]

Each broker has one run per value of `kills`: one cohort per link, all at once, with the same seed, certificates and readings. `kills`
is how often all devices lose their connection and come back, which shows what a handshake costs (resumed, where the broker resumes).
Bytes are those on the link, with TCP and IP headers and retransmissions, of both directions, connecting included, divided by the
readings that arrived. Both brokers run with their default configuration but for the listener with client certificates. Last line: JSON.
"""
import json, os, signal, subprocess, sys, tempfile
from pathlib import Path
from broker import BIN, TARGET, accepts, arguments, free_port

SIM, CERTS = TARGET / "motemq-sim", TARGET / "motemq-certs"


def certificates(folder):
    """An authority, the broker's certificate and one for all devices: identities do not matter to the bytes."""
    for command in (["init"], ["server", "localhost"], ["device", "meter-000001"]):
        subprocess.run([CERTS, "--out", folder / "pki", *command], check=True, stdout=subprocess.DEVNULL)


def ours(folder, port):
    conf = folder / "motemq.toml"
    conf.write_text(f'data_dir = "{folder}/ours"\n[log]\nlevel = "warn"\n[http]\nbind = ""\n[[listeners]]\nname = "devices"\nbind = "127.0.0.1:{port}"\nanonymous = true\n'
                    f'[listeners.tls]\ncert = "{folder}/pki/server.crt"\nkey = "{folder}/pki/server.key"\nclient_ca = "{folder}/pki/ca.crt"\nclient_cert = "required"\nidentity = "none"\n')
    return [BIN, "run", "-c", conf]


def mosquitto(folder, port):
    conf = folder / "mosquitto.conf"
    conf.write_text(f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\ncafile {folder}/pki/ca.crt\ncertfile {folder}/pki/server.crt\nkeyfile {folder}/pki/server.key\n"
                    "require_certificate true\n")
    return ["mosquitto", "-c", conf]


def scenario(o, folder, kills):
    seconds = int(o["duration"].rstrip("m")) * 60
    text = f'duration = "{o["duration"]}"\ndrain = "60s"\nseed = 7\n[tls]\nca = "pki/ca.crt"\ncert = "pki/devices/meter-000001.crt"\nkey = "pki/devices/meter-000001.key"\n'
    for link in o["links"].split(","):
        text += f'[[cohort]]\nname = "{link}"\ncount = {o["devices"]}\nlink = "{link}"\nconnect = {{ rate = "20/s" }}\npublish = {{ every = "{o["every"]}", qos = 1 }}\n'
    for kill in range(kills):
        text += f'[[phase]]\nat = "{seconds * (kill + 1) // (kills + 1)}s"\nkill = "100 %"\n'
    path = folder / f"kills-{kills}.toml"
    path.write_text(text)
    return path


def run(broker, o, kills):
    with tempfile.TemporaryDirectory(prefix="motemq-bytes-") as name:
        folder, port = Path(name), free_port()
        certificates(folder)
        env = {k: v for k, v in os.environ.items() if not k.startswith("MOTEMQ_")}
        p = subprocess.Popen(broker(folder, port), env=env, stderr=subprocess.DEVNULL)
        try:
            while not accepts(port):
                if p.poll() is not None:
                    sys.exit(f"{broker.__name__} did not start")
            report = folder / "report.json"
            command = [SIM, "run", scenario(o, folder, kills), "--broker", f"mqtts://localhost:{port}", "--json", report]
            with open(folder / "log", "w+") as log:
                if subprocess.run(command, stdout=log, stderr=log).returncode != 0:
                    log.seek(0)
                    sys.exit(log.read())
            return json.loads(report.read_text())
        finally:
            p.send_signal(signal.SIGTERM)
            p.wait(30)


def per_reading(report):
    """Bytes per delivered reading of each cohort."""
    return {c["name"]: c["bytes_per_delivered"] for c in report["measured"]["cohorts"]}


if __name__ == "__main__":
    o = arguments(devices=20, every="10s", duration="2m", links="nb-iot,gprs,lte-m,6lowpan", kills="0,3")
    rows = []
    for kills in map(int, o["kills"].split(",")):
        figures = {broker.__name__: per_reading(run(broker, o, kills)) for broker in (ours, mosquitto)}
        rows += [{"link": link, "kills": kills, **{name: found[link] for name, found in figures.items()}} for link in o["links"].split(",")]
    print("| link | connections | MoteMQ | mosquitto | ratio |\n|---|---|---|---|---|")
    for r in rows:
        what = "one" if r["kills"] == 0 else f"one, and {r['kills']} again"
        print(f"| {r['link']} | {what} | {r['ours']:.0f} B | {r['mosquitto']:.0f} B | {r['ours'] / r['mosquitto']:.2f} |")
    print(json.dumps(rows))
