"""A broker for the scripts in this folder: started by start.sh in a folder of its own, watched through /proc, ended by pid.

MOTEMQ_BIN names the binary (default target/release/motemq), LOAD_BIN the load generator (default target/release/load, built by
`cargo build --release -p motemq-tests --bin load`). Loopback only.
"""
import json, os, shutil, signal, socket, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
BIN = os.environ.get("MOTEMQ_BIN", str(TARGET / "motemq"))
LOAD = os.environ.get("LOAD_BIN", str(TARGET / "load"))
TICKS = os.sysconf("SC_CLK_TCK")
# A listener for anybody, to go into Broker's `conf`.
LISTENER = '[[listeners]]\nname = "bench"\nbind = "127.0.0.1:PORT"\nanonymous = true\n'


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connack(port):
    """Whether a CONNECT is answered by an accepting CONNACK."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05probe")
            return s.recv(4) == b"\x20\x02\x00\x00"
    except OSError:
        return False


def accepts(port):
    """Whether a TCP connection is accepted."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
        return True
    except OSError:
        return False


class Broker:
    """One configuration in one folder; may be started again and again. `conf` is text of the configuration after data_dir and log."""

    def __init__(self, conf=None, variant="persist", tls=(), dir=None, env=None):
        self.keep = dir is not None
        self.dir = Path(dir or tempfile.mkdtemp(prefix="motemq-bench-", dir=os.environ.get("TMPDIR", "/tmp")))
        self.dir.mkdir(parents=True, exist_ok=True)
        self.port, self.p, self.env = free_port(), None, dict(os.environ, MOTEMQ_BIN=BIN, **(env or {}))
        self.command = ["sh", str(ROOT / "bench/start.sh"), variant, str(self.port), str(self.dir), *map(str, tls)]
        if conf is not None:
            (self.dir / "own.toml").write_text(f'data_dir = "{self.dir}/store"\n[log]\nlevel = "warn"\n[http]\nbind = ""\n'
                                               + conf.replace("PORT", str(self.port)))
            self.command = [BIN, "run", "-c", str(self.dir / "own.toml")]
            self.env.pop("MOTEMQ_BIN")

    def start(self, limit=60, ready=connack):
        """Starts it; milliseconds from exec until `ready` says so of the port (a CONNACK over plain TCP), or without waiting."""
        began = time.perf_counter()
        self.p = subprocess.Popen(self.command, env=self.env)
        while ready and not ready(self.port):
            if self.p.poll() is not None or time.perf_counter() - began > limit:
                sys.exit("the broker did not start")
            time.sleep(0.002)
        return (time.perf_counter() - began) * 1000

    def stop(self, how=signal.SIGTERM):
        if self.p and self.p.poll() is None:
            self.p.send_signal(how)
            self.p.wait(120)

    def close(self):
        self.stop()
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def cpu_s(self):
        """User and system seconds so far."""
        fields = Path(f"/proc/{self.p.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) / TICKS, int(fields[12]) / TICKS

    def written(self):
        lines = Path(f"/proc/{self.p.pid}/io").read_text().splitlines()
        return {k: int(v) for k, v in (line.split(": ") for line in lines)}["write_bytes"]

    def rss_kib(self, what="VmRSS"):
        """VmRSS now, VmHWM the highest so far."""
        for line in Path(f"/proc/{self.p.pid}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1])
        return 0

    def load(self, name, **options):
        """Runs a load of tests/src/load at this broker; what it reports."""
        done = subprocess.run([LOAD, name, f"port={self.port}", f"pid={self.p.pid}", *(f"{k}={v}" for k, v in options.items())],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"load {name} failed")
        return json.loads(done.stdout)


def certificates(folder):
    """A root, a server certificate for localhost and a device certificate; (ca, cert, key) of the server, and of the device."""
    pki = Path(folder) / "pki"
    if not pki.exists():
        for words in (["init"], ["server", "localhost"], ["device", "device"]):
            subprocess.run([str(TARGET / "motemq-certs"), *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    find = lambda name: next(pki.rglob(name))
    ca = find("ca.crt")
    return (ca, find("server.crt"), find("server.key")), (ca, find("device.crt"), find("device.key"))


def arguments(**defaults):
    """`name=value` of the command line over these."""
    for given in sys.argv[1:]:
        name, _, value = given.partition("=")
        if name not in defaults:
            sys.exit(f"{given}: one of {', '.join(f'{k}={v}' for k, v in defaults.items())}")
        defaults[name] = type(defaults[name])(value)
    return defaults
