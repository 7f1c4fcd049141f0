#!/usr/bin/env python3
"""Causes each fault of deploy/RUNBOOK.md with a real broker, and waits until a real Prometheus fires its alert.

    cargo build --release --workspace && scripts/try-alerts.py [ALERT ...]

Prometheus reads deploy/prometheus/alerts.yaml with the times shortened and nothing else changed. Each scene has a broker of its own;
a line for each alert says after how many seconds it fired, and the exit code is 1 if one did not. Needs the release build (MOTEMQ_BIN,
or target/release), prometheus, openssl, and root for the small disk. Two to three minutes.
"""

import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARIES = Path(os.environ.get("MOTEMQ_BIN", ROOT / "target/release/motemq")).resolve().parent
FOLDER = Path(tempfile.mkdtemp(prefix="try-alerts-"))
# What is looked back over, in seconds, in place of the rules' own.
SHORT = {"30m": "60s", "10m": "20s", "5m": "10s", "1h": "20s", "1d": "5m"}
PATIENCE_S = 60
# What must not be left behind, latest last.
CLEAN_UP = []


class Prometheus:
    """A real one, with the rules of the repository."""

    def __init__(self):
        self.port = free_port()
        self.targets = []
        rules = (ROOT / "deploy/prometheus/alerts.yaml").read_text()
        rules = re.sub(r"\[(\w+)\]", lambda found: f"[{SHORT[found[1]]}]", rules)
        rules = rules.replace("offset 5m", "offset 8s")
        rules = re.sub(r"for: \w+", "for: 1s", rules)
        (FOLDER / "alerts.yaml").write_text(rules)
        configuration = f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [alerts.yaml]
scrape_configs:
  - job_name: motemq
    file_sd_configs: [{{files: [targets.json], refresh_interval: 1s}}]
"""
        (FOLDER / "prometheus.yml").write_text(configuration)
        self.write()
        self.process = spawn(
            ["prometheus", f"--config.file={FOLDER}/prometheus.yml", f"--storage.tsdb.path={FOLDER}/tsdb",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error"], FOLDER / "prometheus.log")

    def scrape(self, port):
        self.targets.append(f"127.0.0.1:{port}")
        self.write()

    def write(self):
        # Replaced as a whole: it is read all the time.
        (FOLDER / "targets.new").write_text(json.dumps([{"targets": self.targets}]))
        (FOLDER / "targets.new").rename(FOLDER / "targets.json")

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def value(self, query):
        data = self.ask("query?" + urllib.parse.urlencode({"query": query}))
        return float(data["result"][0]["value"][1]) if data and data["result"] else None

    def fires(self, alert, port):
        data = self.ask("alerts") or {"alerts": []}
        return any(
            each["state"] == "firing" and each["labels"]["alertname"] == alert and each["labels"]["instance"].endswith(f":{port}")
            for each in data["alerts"]
        )


class Broker:
    """A broker in a folder and on ports of its own."""

    def __init__(self, name, extra="", listener="", soft="", environment=None, data="data"):
        self.name = name
        self.folder = FOLDER / name
        self.folder.mkdir()
        self.port, self.tls, self.http = free_port(), free_port(), free_port()
        self.environment = {**os.environ, **(environment or {})}
        self.soft, self.data = soft, data
        self.configure(extra, listener)

    def configure(self, extra="", listener=""):
        (self.folder / "motemq.toml").write_text(f"""
data_dir = "{self.data}"
[http]
bind = "127.0.0.1:{self.http}"
[admin]
socket = "{self.folder}/admin.sock"
[[listeners]]
name = "mqtt"
bind = "127.0.0.1:{self.port}"
anonymous = true
{listener}
{extra}
""")

    def start(self):
        command = [str(BINARIES / "motemq"), "run", "-c", str(self.folder / "motemq.toml")]
        if self.soft:
            command = ["sh", "-c", f'{self.soft}; exec "$0" "$@"', *command]
        self.process = spawn(command, self.folder / "log", self.environment)
        wait(lambda: reaches(self.port), f"{self.name}: {self.log()}")
        return self

    def watched(self, prometheus):
        self.start()
        prometheus.scrape(self.http)
        up = f'up{{instance="127.0.0.1:{self.http}"}}'
        wait(lambda: prometheus.value(up) == 1, f"{self.name} is not scraped")
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def log(self):
        file = self.folder / "log"
        return file.read_text()[-2000:] if file.exists() else ""


class Client:
    """As much of MQTT 3.1.1 as the faults take."""

    def __init__(self, port, name, clean=True, user=None, password=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.buffer = b""
        flags = (2 if clean else 0) | (0xC0 if user else 0)
        body = text("MQTT") + bytes([4, flags]) + struct.pack(">H", 0) + text(name)
        if user:
            body += text(user) + text(password)
        self.send(0x10, body)
        self.code = self.read()[1][1]

    def send(self, kind, body):
        length, rest = b"", len(body)
        while True:
            rest, digit = divmod(rest, 128)[0], rest % 128
            length += bytes([digit | (0x80 if rest else 0)])
            if not rest:
                break
        self.socket.sendall(bytes([kind]) + length + body)

    def read(self):
        first, length, shift = self.take(1)[0], 0, 0
        while True:
            digit = self.take(1)[0]
            length |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                break
        return first, self.take(length)

    def take(self, count):
        while len(self.buffer) < count:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionError("the broker has closed the connection")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def subscribe(self, topic):
        self.send(0x82, struct.pack(">H", 1) + text(topic) + b"\1")
        self.read()

    def publish(self, topic, payload, count):
        """At QoS 1, fifty at a time."""
        sent = 0
        while sent < count:
            batch = min(50, count - sent)
            for packet_id in range(1, batch + 1):
                self.send(0x32, text(topic) + struct.pack(">H", packet_id) + payload)
            for _ in range(batch):
                self.read()
            sent += batch

    def acknowledge(self, body):
        size = struct.unpack(">H", body[:2])[0]
        self.send(0x40, body[2 + size:4 + size])

    def close(self):
        self.socket.close()


SCENES = []


def scene(*alerts):
    """What a function brings about; it yields when an alert should come, in this order."""

    def enter(function):
        SCENES.append((alerts, function))
        return function

    return enter


@scene("BrokerRestarts", "BrokerDown")
def killed_again_and_again(prometheus):
    broker = Broker("killed").watched(prometheus)
    for _ in range(3):
        time.sleep(2)
        broker.kill()
        broker.start()
    yield broker.http
    broker.kill()
    yield broker.http


@scene("ConnectionsDropped")
def half_of_the_clients_go(prometheus):
    broker = Broker("dropped").watched(prometheus)
    clients = [Client(broker.port, f"c{number}") for number in range(30)]
    time.sleep(9)
    for client in clients[:15]:
        client.close()
    yield broker.http


@scene("ReconnectStorm")
def two_thousand_come_at_once(prometheus):
    broker = Broker("storm").watched(prometheus)
    time.sleep(5)
    # Twice, since a storm that has passed fires nothing.
    for number in range(2):
        sim("bench", "conn", "-p", broker.port, "-c", 1000, "-R", 400, "--duration", "3s", "--prefix", f"s{number}")
    yield broker.http


@scene("LoginsRefused")
def a_wrong_password(prometheus):
    broker = Broker("passwords", '[auth]\npassword_file = "users"')
    run("motemq", "passwd", "add", "meter", "-f", broker.folder / "users", text="right\nright\n")
    broker.watched(prometheus)
    for _ in range(60):
        client = Client(broker.port, "meter", user="meter", password="wrong")
        assert client.code == 5 or client.code == 4, client.code
        client.close()
        time.sleep(0.1)
    yield broker.http


@scene("TlsHandshakesFail")
def clients_that_do_not_know_the_authority(prometheus):
    broker = secured("strangers").watched(prometheus)
    for _ in range(40):
        try:
            # The system's authorities, which did not sign the broker's certificate.
            with socket.create_connection(("127.0.0.1", broker.tls), timeout=5) as plain:
                ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
        except ssl.SSLError:
            pass
        time.sleep(0.1)
    yield broker.http


@scene("QueueNearLimit", "MessagesDropped")
def a_subscriber_that_does_not_come_back(prometheus):
    broker = Broker("queue").watched(prometheus)
    subscriber = Client(broker.port, "away", clean=False)
    subscriber.subscribe("a")
    subscriber.close()
    publisher = Client(broker.port, "publisher")
    publisher.publish("a", b"x" * 20, 9000)
    yield broker.http
    publisher.publish("a", b"x" * 20, 1500)
    yield broker.http


@scene("StorageCommitSlow")
def a_slow_disk(prometheus):
    broker = Broker("slow", environment={"MOTEMQ_INJECT_SYNC_MS": "2000"}).watched(prometheus)
    subscriber = Client(broker.port, "away", clean=False)
    subscriber.subscribe("a")
    subscriber.close()
    publisher = Client(broker.port, "publisher")
    aside(lambda: publisher.publish("a", b"x", 500))
    yield broker.http


@scene("AckRttHigh", "DeliveryLatencyHigh")
def a_client_that_acknowledges_late(prometheus):
    broker = Broker("late").watched(prometheus)
    subscriber = Client(broker.port, "late")
    subscriber.subscribe("a")
    # A hundred are in flight (limits.inflight_messages_max), the others wait for them.
    Client(broker.port, "publisher").publish("a", b"x", 1000)
    deliveries = [subscriber.read()[1] for _ in range(100)]
    time.sleep(32)
    for body in deliveries:
        subscriber.acknowledge(body)
    yield broker.http
    yield broker.http


@scene("DiskFillsIn4h", "StorageFull")
def a_disk_that_fills(prometheus):
    if os.geteuid() != 0:
        raise RuntimeError("needs root, for a small disk")
    broker = Broker("disk", '[limits]\nqueue_messages_max = 1000000\nqueue_bytes_max = "1GiB"\npacket_bytes_max = "2MiB"')
    data = broker.folder / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", data], check=True)
    CLEAN_UP.append(lambda: subprocess.run(["umount", "--lazy", data], check=True))
    broker.watched(prometheus)
    node = free_port()
    stand_in(node, data)
    prometheus.scrape(node)
    subscriber = Client(broker.port, "away", clean=False)
    subscriber.subscribe("a")
    subscriber.close()

    def fill():
        for number in range(200):
            try:
                Client(broker.port, f"publisher{number}").publish("a", os.urandom(500_000), 2)
            except (ConnectionError, TimeoutError):
                pass
            time.sleep(0.2)

    aside(fill)
    yield node
    yield broker.http


def stand_in(port, folder):
    """What node_exporter would say of the disk."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            disk = os.statvfs(folder)
            page = f'node_filesystem_avail_bytes{{mountpoint="/data"}} {disk.f_bavail * disk.f_frsize}\n'.encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_):
            pass

    aside(http.server.HTTPServer(("127.0.0.1", port), Page).serve_forever)


@scene("CertExpiresSoon", "CertExpiresNow")
def a_certificate_that_nobody_renews(prometheus):
    broker = secured("certificate", days=10).watched(prometheus)
    yield broker.http
    run("motemq-certs", "--out", broker.folder / "pki", "renew", "--server", "--days", 2)
    yield broker.http


@scene("CrlStale", "CrlOverdue")
def a_list_that_nobody_renews(prometheus):
    broker = secured("list", 'crl = "pki/ca.crl"')
    run("motemq-certs", "--out", broker.folder / "pki", "crl", "--days", 1)
    broker.watched(prometheus)
    yield broker.http
    short_list(broker.folder / "pki")
    yield broker.http


def short_list(pki):
    """A list that holds for two seconds, which motemq-certs does not make."""
    (pki / "index").write_text("")
    (pki / "number").write_text("7FFFFFFFFFFFFF00\n")
    (pki / "openssl.cnf").write_text(
        f"[ca]\ndefault_ca = this\n[this]\ndatabase = {pki}/index\ncrlnumber = {pki}/number\ndefault_md = sha256\n"
        "crl_extensions = of\n[of]\nauthorityKeyIdentifier = keyid:always\n"
    )
    new = pki / "new.crl"
    subprocess.run(
        ["openssl", "ca", "-config", pki / "openssl.cnf", "-gencrl", "-crlsec", "2", "-keyfile", pki / "ca.key", "-cert", pki / "ca.crt",
         "-out", new], check=True, capture_output=True)
    new.rename(pki / "ca.crl")


@scene("AllowListBroken")
def a_torn_inventory(prometheus):
    broker = secured("inventory", 'allow_list = "pki/inventory.jsonl"').watched(prometheus)
    with (broker.folder / "pki/inventory.jsonl").open("a") as inventory:
        inventory.write("{ this is no entry\n")
    yield broker.http


@scene("ConfigReloadFailed")
def a_mistake_in_the_configuration(prometheus):
    broker = Broker("mistake").watched(prometheus)
    broker.configure("[limits]\nreceive_maximun = 20")
    broker.process.send_signal(signal.SIGHUP)
    yield broker.http


@scene("FdUsageHigh")
def too_few_descriptors(prometheus):
    broker = Broker("descriptors", soft="ulimit -n 400").watched(prometheus)
    clients = []
    try:
        clients.extend(Client(broker.port, f"c{number}") for number in range(400))
    except ConnectionError:
        # Closed for want of descriptors.
        pass
    yield broker.http
    del clients


@scene("MemoryPressure")
def too_little_memory(prometheus):
    # Nothing on disk, so that what waits for a client that is away is in memory.
    limits = '[limits]\nmemory_bytes_max = "32MiB"\nqueue_bytes_max = "1GiB"'
    broker = Broker("memory", limits, data="").watched(prometheus)
    subscriber = Client(broker.port, "away", clean=False)
    subscriber.subscribe("a")
    subscriber.close()
    publisher = Client(broker.port, "publisher")
    aside(lambda: publisher.publish("a", os.urandom(100_000), 400))
    yield broker.http


@scene("EventLoopLag")
def a_machine_that_stands_still(prometheus):
    broker = Broker("lag").watched(prometheus)

    def stutter():
        for _ in range(40):
            broker.process.send_signal(signal.SIGSTOP)
            time.sleep(0.6)
            broker.process.send_signal(signal.SIGCONT)
            time.sleep(0.4)

    aside(stutter)
    yield broker.http


def secured(name, tls="", days=397):
    """A broker with an authority, a certificate and a TLS listener."""
    broker = Broker(name)
    pki = broker.folder / "pki"
    run("motemq-certs", "--out", pki, "init", "--name", name)
    run("motemq-certs", "--out", pki, "server", "localhost", "--days", days)
    broker.configure(listener=f"""
[[listeners]]
name = "mqtts"
bind = "127.0.0.1:{broker.tls}"
[listeners.tls]
cert = "pki/server.crt"
key = "pki/server.key"
client_ca = "pki/ca.crt"
client_cert = "optional"
{tls}
""")
    return broker


def run(program, *arguments, text=None):
    command = [str(BINARIES / program), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, input=text, text=True)


def sim(*arguments):
    run("motemq-sim", *arguments)


def spawn(command, log, environment=None):
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log.open("a"), stderr=subprocess.STDOUT, env=environment)
    CLEAN_UP.append(lambda: end(process))
    return process


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def aside(work):
    def quietly():
        try:
            work()
        except OSError:
            pass

    threading.Thread(target=quietly, daemon=True).start()


def text(value):
    data = value.encode()
    return struct.pack(">H", len(data)) + data


GIVEN_PORTS = set()


def free_port():
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in GIVEN_PORTS:
            GIVEN_PORTS.add(port)
            return port


def reaches(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def wait(is_so, otherwise):
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(0.1)


def attempt(prometheus, alerts, function, wanted):
    """Plays a scene; says of how many of its alerts nothing was seen."""
    began = time.monotonic()
    name = function.__name__.replace("_", " ")
    seen = 0
    try:
        for alert, port in zip(alerts, function(prometheus)):
            caused = time.monotonic()
            wait(lambda: prometheus.fires(alert, port), f"{alert} did not fire")
            seen += 1
            print(f"{alert:20} fired {time.monotonic() - caused:5.1f} s after: {name} ({time.monotonic() - began:.0f} s)", flush=True)
    except (RuntimeError, OSError, AssertionError, subprocess.CalledProcessError) as problem:
        print(f"FAILED {name}: {problem} {getattr(problem, 'stderr', '') or ''}", flush=True)
    return len(alerts) - seen


def main():
    wanted = set(sys.argv[1:])
    scenes = [(alerts, function) for alerts, function in SCENES if not wanted or wanted & set(alerts)]
    rules = (ROOT / "deploy/prometheus/alerts.yaml").read_text()
    missing = set(re.findall(r"- alert: (\w+)", rules)) - {alert for alerts, _ in SCENES for alert in alerts}
    if missing:
        sys.exit(f"no scene causes {missing}")
    # Messages that `aside` keeps on sending must not end this process.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    prometheus = Prometheus()
    failed = 0
    try:
        wait(lambda: prometheus.ask("alerts") is not None, "prometheus does not answer")
        for alerts, function in scenes:
            failed += attempt(prometheus, alerts, function, wanted)
    finally:
        for task in reversed(CLEAN_UP):
            task()
        shutil.rmtree(FOLDER, ignore_errors=True)
    fired = sum(len(alerts) for alerts, _ in scenes) - failed
    print(f"{fired} alerts fired, {failed} did not")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
