#!/usr/bin/env python3
"""The whole table against the peers, with one command:

  bench/table.py [rounds=3 out=/tmp/motemq-table.jsonl only= shared=../shared peers=ours,mosquitto,rumqttd tools=1 run=1]

Runs `shared`/tools/peers.py (interleaved rounds of our broker and the peers installed here) and the scripts of this folder, appends what
they report to `out`, and prints every row with its goal. `only` names scenarios or groups of peers.py (only=core,wild_2k), `tools=0` leaves
the scripts of this folder out, `run=0` prints what `out` holds already. MOTEMQ_BIN, LOAD_BIN: as for the other scripts; MQLOAD_BIN,
PEERS_DIR: see `shared`/tools/README.md. A round of everything takes about 25 minutes.

FlashMQ, rmqttd and NATS cannot be installed here. Their figures are those of `shared`/notes/performance.md, scaled by the peer that both
have: its figure there / mosquitto's there x mosquitto's here. (There mosquitto is 2.1.2, Debian's is 2.0.11.) Memory is not scaled: bytes
do not depend on the machine. The durable rows are scaled by mosquitto's pairs_q1: it keeps no comparable store here.
A verdict compares with the best of all, measured here or scaled; `~` marks a miss of less than 15 %, which on a busy machine is a tie.
"""
import importlib.util, json, os, statistics, subprocess, sys
from pathlib import Path
from broker import BIN, ROOT, arguments

# Row -> scenario of peers.py, its metric, the goal as a share of the best peer's (at most, or at least where more is better).
FLOW = {"pairs_q0": 0.65, "pairs_q0_single": 0.75, "pairs_q1": 0.7, "pairs_q2": 0.7, "fanin_q0": 0.9, "fanout_q0": 0.65,
        "fanout_q0_batch": 1.0, "shared_q1": 0.8, "tls_pairs_q0": 0.8}
ROWS = [(s, "broker CPU us/msg", g) for s, g in FLOW.items()] + [("big_q0", "CPU us/msg", 0.8)]
ROWS += [(s, "msg/s", 1.0) for s in FLOW] + [("big_q0", "MB/s", 1.0)]
ROWS += [(s, m, 1.0) for s in ("lat_pairs_q0", "lat_pairs_q1", "lat_fanout_q0", "lat_tls_pairs_q0") for m in ("p50 us", "p99 us")]
ROWS += [("idle_tcp", "KiB/conn", 0.75), ("idle_tls", "KiB/conn", 0.75), ("idle_tcp", "CPU us/connect", 0.9),
         ("tls_full", "CPU ms/handshake", 0.9), ("tls_resumed", "CPU ms/handshake", 0.9)]
ROWS += [(f"wild_{n}", m, g) for m, g in (("CPU us/publish", 0.7), ("CPU us/SUBSCRIBE", 0.8), ("bytes/sub", 0.4)) for n in ("2k", "20k", "200k")]
ROWS += [("retained", m, 0.8) for m in ("store CPU us", "narrow p50 us", "drain CPU us", "bytes/retained")]
ROWS += [("offline_q1", "store CPU us", 1.0), ("offline_q1", "drain CPU us", 1.0), ("slow_consumer", "p99 us", 1.0)]
# Rows with a goal of their own: scenario, metric, goal.
ABSOLUTE = [("offline_q1", "bytes/queued", 120), ("durable_pairs_q1", "msg/s", 150_000), ("durable_crash", "acked-lost offline, worst run", 0),
            ("durable_crash", "acked-lost online, worst run", 0)]
DURABLE = {"offline_q1", "durable_pairs_q1", "durable_crash"}
# Scripts of this folder: what they are called with, and which of their figures have goals.
TOOLS = {
    "offline.py": (["window=1,4"], [("window 1: acknowledgements/s", lambda r: r["window"] == 1, "rate", 40_000, 1),
                                    ("window 1: p99 ms", lambda r: r["window"] == 1, "p99_us", 25_000, -1000),
                                    ("window 1: bytes written / payload and topic", lambda r: r["window"] == 1, "amplification_at_rest", 3, -1),
                                    ("window 4: acknowledgements/s", lambda r: r["window"] == 4, "rate", 40_000, 1),
                                    ("window 4: p99 ms", lambda r: r["window"] == 4, "p99_us", 25_000, -1000),
                                    ("window 4: bytes written / payload and topic", lambda r: r["window"] == 4, "amplification_at_rest", 3, -1)]),
    "start.py": ([], [("seconds, after an orderly stop", lambda r: "stop" in r["after"], "ms", 5000, -1000),
                      ("seconds, after kill -9", lambda r: "kill" in r["after"], "ms", 5000, -1000)]),
    "fleet.py": (["resume=0,1"], [("99 % back, full handshakes, seconds", lambda r: not r["resume"], "p99_ms", 10_000, -1000),
                                  ("99 % back, resumed, seconds", lambda r: r["resume"] and r["resumed"], "p99_ms", 6000, -1000)]),
    "small.py": ([], [("resident MiB at start", lambda r: True, "start_kib", 15 << 10, -1024),
                      ("peak MiB with 1,000 TLS clients", lambda r: True, "peak_kib", 64 << 10, -1024)]),
}


def peers_module(shared):
    spec = importlib.util.spec_from_file_location("peers", Path(shared) / "tools/peers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def note_figures(path):
    """(scenario, metric) -> peer -> figure, from the tables of the note."""
    figures, head = {}, []
    for line in path.read_text().splitlines() if path.exists() else []:
        cells = [c.strip().strip("*") for c in line.strip().strip("|").split("|")]
        if cells[:2] == ["scenario", "metric"]:
            head = cells
        elif len(cells) == len(head) and head:
            figures[cells[0], cells[1]] = {p: float(c.replace(",", "")) for p, c in zip(head[2:-1], cells[2:-1])
                                           if c.replace(",", "").replace(".", "", 1).isdigit()}
    return figures


def run(o, peers):
    env = dict(os.environ, MOTEMQ_BIN=BIN)
    sh = ROOT / "bench/start.sh"
    ours = {v: f"sh {sh} {v} {{port}} {{dir}}" + (" {ca} {srv_crt} {srv_key}" if "tls" in v else "") for v in ("plain", "tls", "mtls", "persist")}
    extra = Path(o["out"] + ".ours.json")
    extra.write_text(json.dumps({"ours": ours}))
    for s in peers.scen_list(o["only"] or "all"):
        # rumqttd looks at every filter for every topic: with 20,000 a publish takes 12 ms, with 200,000 nothing moves. Debian's mosquitto
        # has no sqlite plugin and writes its whole store anew at every change: it takes minutes and proves nothing.
        names = [p for p in o["peers"].split(",") if not (p == "rumqttd" and s in ("wild_20k", "wild_200k")) and not (p == "mosquitto" and s in DURABLE)]
        subprocess.run([sys.executable, peers.__file__, "--extra", extra, "run", "--peers", ",".join(names), "--scenarios", s,
                        "--rounds", str(o["rounds"]), "--out", o["out"]], env=env)
    for tool, (words, _) in TOOLS.items() if o["tools"] else ():
        done = subprocess.run([sys.executable, ROOT / "bench" / tool, f"rounds={o['rounds']}", *words], env=env, stdout=subprocess.PIPE, text=True)
        print(done.stdout, flush=True)
        if done.returncode == 0:
            with open(o["out"], "a") as out:
                for r in json.loads(done.stdout.strip().splitlines()[-1]):
                    out.write(json.dumps(r | {"tool": tool}) + "\n")


class Table:
    def __init__(self, o, peers):
        rows = [json.loads(line) for line in open(o["out"]) if line.strip()]
        self.peers, self.tools, self.data = peers, [r for r in rows if "tool" in r], {}
        self.note = note_figures(Path(o["shared"]) / "notes/performance.md")
        for r in (r for r in rows if "tool" not in r):
            self.data.setdefault(r["name"], {}).setdefault(r["peer"], []).append(r)

    def measured(self, scenario, metric):
        """Peer -> median of its clean runs."""
        heads = [head for _, head, _ in self.peers.METRICS[self.peers.kind(scenario)]]
        place = heads.index(metric)
        found = {p: self.peers.values(scenario, rs)[place] for p, rs in self.data.get(scenario, {}).items()}
        return {p: v for p, v in found.items() if v is not None and not self.peers.relay_name(p)}

    def scaled(self, scenario, metric):
        """Peer that is not here -> its figure of the note, in terms of this machine."""
        there = self.note.get((scenario, metric), {})
        absent = {p: v for p, v in there.items() if p in ("flashmq", "rmqttd", "nats")}
        if any(word in metric for word in ("bytes", "KiB")):
            return absent
        base = (scenario, metric)
        if scenario in DURABLE:
            base = ("pairs_q1", "msg/s" if "/s" in metric else "broker CPU us/msg")
        here, then = self.measured(*base).get("mosquitto"), self.note.get(base, {}).get("mosquitto")
        return {p: v / then * here for p, v in absent.items()} if here and then else {}

    def row(self, scenario, metric, goal):
        better = next(b for _, head, b in self.peers.METRICS[self.peers.kind(scenario)] if head == metric)
        found, scaled = self.measured(scenario, metric), self.scaled(scenario, metric)
        ours = found.pop("ours", None)
        if ours is None:
            return
        best = lambda of: (max if better > 0 else min)(of.items(), key=lambda t: t[1]) if of else None
        ratio = lambda other: f"{ours / other[1]:.2f}" if other and other[1] else "-"
        name = lambda other: f"{other[0]} {self.peers.fmt(other[1])}" if other else "-"
        here, there = best(found), best(scaled)
        of_all = best(dict(filter(None, (here, there))))
        share = ours / of_all[1] if of_all and of_all[1] else None
        self.line(f"{scenario}, {metric}", self.peers.fmt(ours), name(here), ratio(here), name(there), ratio(there),
                  f"{'>=' if better > 0 else '<='} {goal}", verdict(share, goal, better))

    def absolute(self, label, ours, goal, better, unit=1):
        if ours is not None:
            fmt = lambda x: self.peers.fmt(x / unit)
            self.line(label, fmt(ours), "-", "-", "-", "-", f"{'>=' if better > 0 else '<='} {fmt(goal)}", verdict(ours, goal, better))

    def line(self, *cells):
        print("| " + " | ".join(cells) + " |")

    def show(self):
        self.line("row", "ours", "best peer of this run", "ratio", "best of the note, scaled", "ratio", "goal", "verdict")
        self.line(*["---"] * 8)
        for scenario, metric, goal in ROWS:
            self.row(scenario, metric, goal)
        few, many = (self.measured(f"wild_{n}", "CPU us/publish").get("ours") for n in ("2k", "200k"))
        self.absolute("wild, CPU us/publish: 200k / 2k", few and many and many / few, 1.2, -1)
        for scenario, metric, goal in ABSOLUTE:
            ours = self.measured(scenario, metric).get("ours")
            self.absolute(f"{scenario}, {metric}", ours, goal, 1 if "/s" in metric else -1)
        for tool, (_, figures) in TOOLS.items():
            for label, which, key, goal, better in figures:
                found = [r[key] for r in self.tools if r["tool"] == tool and which(r) and r[key] is not None]
                self.absolute(f"{tool}: {label}", statistics.median(found) if found else None, goal, better, max(1, abs(better)))
        dirty = {(r["name"], r["peer"]): r.get("error") or r.get("note") or "not clean" for rs in self.data.values() for p in rs.values()
                 for r in p if not r.get("ok") and r["name"] != "durable_crash"}
        for (scenario, peer), why in sorted(dirty.items()):
            print(f"a run of {scenario} with {peer} did not count: {why}")


def verdict(value, goal, better):
    if value is None:
        return "no peer"
    if value >= goal if better > 0 else value <= goal:
        return "met"
    near = value >= goal / 1.15 if better > 0 else value <= goal * 1.15
    return "missed ~" if near else "missed"


if __name__ == "__main__":
    o = arguments(rounds=3, out="/tmp/motemq-table.jsonl", only="", shared=str(ROOT.parent / "shared"), peers="ours,mosquitto,rumqttd", tools=1, run=1)
    peers = peers_module(o["shared"])
    if o["run"]:
        run(o, peers)
    print(__doc__.split("\n\n")[3])
    Table(o, peers).show()
