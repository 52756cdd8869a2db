#!/usr/bin/env bash
# Writes deploy/images.env: each base image of docker-compose.yml with the digest that its tag has now. Needs Docker and
# access to the registry. Run it again to renew the digests, for example for a fixed vulnerability.
set -euo pipefail
cd "$(dirname "$0")/.."
new=$(mktemp)
trap 'rm -f "$new"' EXIT

cat >"$new" <<END
# The base images of docker-compose.yml, pinned to what their tags meant on $(date +%Y-%m-%d); \`make image-digests\` renews them.
# Use it with: docker compose --env-file deploy/images.env up --build (docs/operating.md)
END
# ${POSTGRES_IMAGE:-postgres:16} -> POSTGRES_IMAGE postgres:16
sed -n 's/.*${\([A-Z]*_IMAGE\):-\([^}]*\)}.*/\1 \2/p' docker-compose.yml | sort -u | while read -r setting image; do
    docker pull --quiet "$image" >/dev/null </dev/null
    digest=$(docker image inspect --format '{{index .RepoDigests 0}}' "$image" </dev/null)
    # with the tag, for those who read it; Docker looks only at the digest
    printf '%s=%s@%s\n' "$setting" "$image" "${digest##*@}" >>"$new"
done
cat "$new" >"${1:-deploy/images.env}" # only when every image has its digest
