#!/bin/sh
# Starts the broker for ../shared/tools/peers.py: start.sh VARIANT PORT DIR [CA CERT KEY], and becomes it.
# MOTEMQ_BIN names the binary; the limits are raised as for the peers, so that no run drops a message.
set -eu
variant=$1 port=$2 dir=$3 ca=${4:-} cert=${5:-} key=${6:-}
here=$(cd "$(dirname "$0")/.." && pwd)
bin=${MOTEMQ_BIN:-$here/target/release/motemq}
{
    if [ "$variant" = persist ]; then echo "data_dir = \"$dir/store\""; else echo 'data_dir = ""'; fi
    printf '[log]\nlevel = "warn"\n[http]\nbind = ""\n'
    printf '[limits]\nreceive_maximum = 1000\ninflight_messages_max = 1000\nqueue_messages_max = 1000000\nqueue_bytes_max = 1073741824\nunauthenticated_max = 20000\n'
    printf '[[listeners]]\nname = "bench"\nbind = "127.0.0.1:%s"\nanonymous = true\n' "$port"
    if [ -n "$cert" ]; then printf '[listeners.tls]\ncert = "%s"\nkey = "%s"\n' "$cert" "$key"; fi
    if [ "$variant" = mtls ]; then printf 'client_ca = "%s"\nclient_cert = "required"\n' "$ca"; fi
} >"$dir/motemq.toml"
unset MOTEMQ_BIN
exec "$bin" run -c "$dir/motemq.toml"
