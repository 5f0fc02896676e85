#!/usr/bin/env bash
# Starts the server with every example deployed for the tenant "demo", and prints what to try.
# `make run` calls it after the build. State is kept in .atoll/: remove that folder to begin anew.
set -euo pipefail
cd "$(dirname "$0")/.."

atoll="${CARGO_TARGET_DIR:-target}/release/atoll"
listen="${LISTEN:-127.0.0.1:8787}"
state=.atoll
umask 077 # the token is in there

mkdir -p "$state"
if [ ! -s "$state/token" ] || [ ! -s "$state/hash" ]; then
  made="$("$atoll" token --json 2>/dev/null)"
  sed -E 's/.*"token": *"([^"]+)".*/\1/' <<<"$(tr -d '\n' <<<"$made")" > "$state/token"
  sed -E 's/.*"sha256": *"([^"]+)".*/\1/' <<<"$(tr -d '\n' <<<"$made")" > "$state/hash"
fi
[ -s "$state/master.key" ] || head -c 32 /dev/urandom | base64 > "$state/master.key"
cat > "$state/atoll.toml" <<TOML
listen = ["$listen"]
base_domain = "localhost"
data_dir = "$state/data"

[sandbox]

[secrets]
key_id = "run"
key_file = "$state/master.key"

[identity]
issuer = "http://$listen"

[proxy.github]
tenants = ["demo"]
origin = "api.github.com"
secret = "github"
inject = { type = "bearer" }

[tenants.demo]
tokens = [{ sha256 = "$(cat "$state/hash")", scopes = ["read", "deploy", "execute", "sandbox", "audit", "secrets", "tokens", "proxy", "hosts"] }]
TOML

"$atoll" serve --config "$state/atoll.toml" ${ATOLL_SERVE_FLAGS:-} &
server=$!
trap 'kill -TERM "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
trap 'exit 0' INT TERM

export ATOLL_URL="http://$listen" ATOLL_TOKEN
ATOLL_TOKEN="$(cat "$state/token")"
for _ in $(seq 300); do
  if curl -fsS -o /dev/null --max-time 2 "$ATOLL_URL/readyz" 2>/dev/null; then ready=yes; break; fi
  if ! kill -0 "$server" 2>/dev/null; then echo "run: the server did not start; its last lines above say why" >&2; exit 1; fi
  sleep 0.1
done
if [ "${ready:-}" != yes ]; then echo "run: the server is not ready after 30 s" >&2; exit 1; fi

for config in examples/*/wrangler.jsonc; do
  "$atoll" deploy "$(dirname "$config")" >/dev/null 2>"$state/deploy.log" || { cat "$state/deploy.log" >&2; exit 1; }
done

worker() { printf '%s/w/demo/%s' "$ATOLL_URL" "$1"; }
cat <<TRY

Atoll serves the examples. In another terminal:

  curl '$(worker hello)/?name=Ada'
  curl '$(worker typescript)/?value=100&unit=fahrenheit'
  curl '$(worker hono)/notes' -H 'content-type: application/json' -d '{"text":"hi"}'
  curl '$(worker dispatcher)/'
  curl '$(worker dispatcher)/' --data-binary 'export default { fetch() { return new Response("guest\n") } }'
  curl '$(worker codemode)/' --data-binary 'async () => tools.search({ word: "reef" })'
  curl -N '$(worker streaming)/'
  curl '$(worker wasm)/?n=10000'
  curl '$(worker scheduled)/'
  curl '$(worker agent-js)/?user=ann'          # clones, installs and tests in a sandbox, where sandboxes can be had
  curl '$(worker shop)/?apple=4&bread=1'

Workers also answer at host names:  curl http://hello.demo.localhost:${listen##*:}/
Code mode, one POST:

  export ATOLL_URL=$ATOLL_URL ATOLL_TOKEN=\$(cat $state/token)
  curl \$ATOLL_URL/v1/execute -H "authorization: Bearer \$ATOLL_TOKEN" -H 'content-type: application/json' \\
       -d @examples/execute/request.json

The command is $atoll; try \`$atoll --help\`. Ctrl-C stops the server.

TRY
wait "$server"
