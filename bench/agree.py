#!/usr/bin/env python3
"""Whether `motemq-sim bench` and ../shared/tools/mqload measure the same:

  bench/agree.py [rounds=3 secs=4 only=pairs_q0,fanin wrap= sim=target/release/motemq-sim shared=../shared]

One broker (start.sh, plain); in each round every flow is run by both tools, one right after the other and in turns first, with the same number of
clients, payload, window and batch. The figure is the median over the rounds of bench's / mqload's in one round: on a busy machine the
broker's CPU time per message holds, a rate depends on who else computes. The two read CPU time differently: mqload asks the CPU clock of the
process, bench /proc, which counts in steps of 10 ms. Latencies of a busy machine are those of its scheduler: `wrap="chrt -r 1"` (as root) puts broker
and both tools before everybody else. MQLOAD_BIN and MOTEMQ_BIN as for the other scripts. Last line: JSON.
"""
import json, os, statistics, subprocess, sys, tempfile
from broker import ROOT, TARGET, Broker, arguments

# Flow -> mqload's scenario and options, bench's options, and the figures that are compared.
CLOSED, OPEN = ["cpu", "rate"], ["cpu", "rate", "p50", "p99"]
FLOWS = {
    "pairs_q0": ("pairs_q0", "", "roundtrip --pairs -c 200 -I 0 -F 20 --batch 10", CLOSED),
    "pairs_q1": ("pairs_q1", "", "roundtrip --pairs -c 200 -q 1 -I 0 -F 16 --batch 8", CLOSED),
    "pairs_q2": ("pairs_q2", "", "roundtrip --pairs -c 200 -q 2 -I 0 -F 16 --batch 8", CLOSED),
    "fanin": ("fanin_q0", "", "fanin -c 1000 -I 0 -F 2", CLOSED),
    "fanout": ("fanout_q0", "", "fanout -c 1000 -I 0 -F 2", CLOSED),
    "roundtrip 10,000/s q0": ("pairs_q0", "--rate 10000", "roundtrip --pairs -c 200 -I 20", OPEN),
    "roundtrip 5,000/s q1": ("pairs_q1", "--rate 5000", "roundtrip --pairs -c 200 -q 1 -I 40 -F 1000", OPEN),
}
HEADS = {"cpu": "broker CPU us/message", "rate": "messages/s", "p50": "p50 us", "p99": "p99 us", "generator": "generator CPU us/message"}
TOLERANCE = 0.15


def mqload(command, broker, scenario, options, secs):
    words = [*command, scenario, "--port", str(broker.port), "--pid", str(broker.p.pid), "--secs", str(secs), *options.split()]
    r = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    if not r["ok"]:
        sys.exit(f"mqload {scenario}: {r}")
    return {"cpu": r["cpu_us"], "rate": r["rate"], "p50": r.get("p50_us"), "p99": r.get("p99_us"), "generator": r["gen_us"]}


def bench(command, broker, options, secs):
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        words = [*command, "bench", *options.split(), "-h", "127.0.0.1", "-p", str(broker.port), "-V", "4", "-s", "32", "-R", "5000", "--duration",
                 f"{secs}s", "--broker-pid", str(broker.p.pid), "--json", file.name]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        r = json.load(file)
    m = r["measured"]
    if r["outcome"]["lost"] or r["outcome"]["foreign"]:
        sys.exit(f"{' '.join(words)}: {r['outcome']}")
    return {"cpu": m["broker"]["cpu_us_per_message"], "rate": m["received_per_s"], "p50": m["latency"]["p50_us"], "p99": m["latency"]["p99_us"],
            "generator": m["generator"]["cpu_us_per_message"]}


def measure(o):
    tools = {"mqload": os.environ.get("MQLOAD_BIN", ROOT / o["shared"] / "tools/mqload/target/release/mqload"), "bench": o["sim"] or TARGET / "motemq-sim"}
    wrap = o["wrap"].split()
    tools = {tool: [*wrap, str(binary)] for tool, binary in tools.items()}
    chosen = o["only"].split(",") if o["only"] else list(FLOWS)
    results = {name: [] for name in FLOWS if any(name.startswith(c) for c in chosen)}
    with Broker(variant="plain") as broker:
        broker.command = [*wrap, *broker.command]
        broker.start()
        for r in range(o["rounds"]):
            for name, rounds in results.items():
                scenario, theirs, ours, _ = FLOWS[name]
                both = {}
                # Who comes first finds the caches of the flow before: that changes from round to round.
                for tool in ("mqload", "bench") if r % 2 else ("bench", "mqload"):
                    both[tool] = (mqload(tools[tool], broker, scenario, theirs, o["secs"]) if tool == "mqload"
                                  else bench(tools[tool], broker, ours, o["secs"]))
                rounds.append(both)
                print(name, {t: {k: v and round(v, 2) for k, v in f.items()} for t, f in both.items()}, file=sys.stderr, flush=True)
    return results


def table(results):
    rows = []
    for name, rounds in results.items():
        for key in FLOWS[name][3] + ["generator"]:
            ratios = [r["bench"][key] / r["mqload"][key] for r in rounds]
            median = {tool: statistics.median(r[tool][key] for r in rounds) for tool in ("mqload", "bench")}
            rows.append({"flow": name, "figure": key, "ratio": statistics.median(ratios), "ratios": ratios, **median})
    print("| flow | figure | mqload | bench | bench / mqload, each round | median |\n|---|---|---|---|---|---|")
    for row in rows:
        number = lambda v: f"{v:,.0f}" if v >= 1000 else f"{v:.3g}"
        each = ", ".join(f"{ratio:.2f}" for ratio in sorted(row["ratios"]))
        # What the generators cost themselves is no figure of the broker's.
        miss = row["figure"] != "generator" and abs(row["ratio"] - 1) > TOLERANCE
        print(f"| {row['flow']} | {HEADS[row['figure']]} | {number(row['mqload'])} | {number(row['bench'])} | {each} | "
              f"**{row['ratio']:.2f}**{' (off)' if miss else ''} |")
    return rows


if __name__ == "__main__":
    o = arguments(rounds=3, secs=4, only="", wrap="", sim="", shared="../shared")
    print(json.dumps(table(measure(o))))
