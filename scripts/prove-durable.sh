#!/bin/sh
# Shows in about a minute what an acknowledgement is worth: N messages at QoS 1 for a durable subscriber that is away,
# kill -9, start again, count. First motemq, then Debian's mosquitto with "persistence true" and its default autosave.
#
#   scripts/prove-durable.sh [N]        MOTEMQ_BIN names another binary than target/release/motemq
set -eu

messages=${1:-2000}
here=$(cd "$(dirname "$0")/.." && pwd)
binary=${MOTEMQ_BIN:-${CARGO_TARGET_DIR:-$here/target}/release/motemq}
# Debian keeps the daemon outside of a user's PATH.
PATH=$PATH:/usr/sbin

if [ ! -x "$binary" ]; then
    echo "building motemq (once, a few minutes)"
    (cd "$here" && cargo build --release --quiet)
fi

if ! command -v mosquitto_pub >/dev/null || ! command -v mosquitto_sub >/dev/null; then
    echo "mosquitto_pub and mosquitto_sub are missing (Debian: apt install mosquitto-clients mosquitto);"
    echo "killing motemq 5 times under the clients of this repository instead:"
    cd "$here"
    MOTEMQ_BIN=$binary exec cargo run --release --quiet -p motemq-tests --bin kill-ledger -- --kills 5
fi

work=$(mktemp -d)
pid=
cleanup() {
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# start NAME COMMAND...: runs it in the background and waits for its port.
start() {
    name=$1
    shift
    "$@" >>"$work/$name.log" 2>&1 &
    pid=$!
    tries=0
    until mosquitto_pub -p "$port" -t prove/up -m up 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
            echo "$name does not start:"
            tail -n 5 "$work/$name.log"
            exit 1
        fi
        sleep 0.1
    done
}

# prove NAME COMMAND...: prints what the broker acknowledged and lost; sets lost.
prove() {
    name=$1
    start "$@"
    # A durable session for "meter-reader", which then goes away.
    mosquitto_sub -p "$port" -i meter-reader -c -q 1 -t 'prove/meter' -E
    # Ends with 0 when the last message was acknowledged.
    seq 1 "$messages" | mosquitto_pub -p "$port" -i meter -q 1 -t prove/meter -l
    kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
    start "$@"
    received=$(mosquitto_sub -p "$port" -i meter-reader -c -q 1 -t 'prove/meter' -C "$messages" -W 5 2>/dev/null | sort -un | wc -l)
    kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
    pid=
    lost=$((messages - received))
    echo "$name: acknowledged $messages, lost $lost"
}

# A port that nobody listens on.
port=18830
while mosquitto_pub -p "$port" -t prove/up -m up 2>/dev/null; do
    port=$((port + 1))
done

cat >"$work/motemq.toml" <<TOML
data_dir = "$work/motemq"
[[listeners]]
name = "mqtt"
bind = "127.0.0.1:$port"
anonymous = true
[limits]
queue_messages_max = 1000000
[http]
bind = ""
TOML
prove motemq "$binary" run -c "$work/motemq.toml"
ours=$lost

if command -v mosquitto >/dev/null; then
    mkdir "$work/mosquitto"
    cat >"$work/mosquitto.conf" <<CONF
listener $port 127.0.0.1
allow_anonymous true
persistence true
persistence_location $work/mosquitto/
max_queued_messages 0
user $(id -un)
CONF
    prove "mosquitto $(mosquitto -h | sed -n 's/^mosquitto version //p')" mosquitto -c "$work/mosquitto.conf"
else
    echo "mosquitto: not installed (Debian: apt install mosquitto), so there is nothing to compare with"
fi

[ "$ours" -eq 0 ]
