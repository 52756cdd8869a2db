#!/usr/bin/env bash
# Prints, for each base image of docker-compose.yml, the line of .env that pins it to the digest that its tag has now:
#   make image-digests >>.env
# Needs Docker and access to the registry. Run it again to renew the digests, for example for a fixed vulnerability.
set -euo pipefail
cd "$(dirname "$0")/.."

# ${POSTGRES_IMAGE:-postgres:16} -> POSTGRES_IMAGE postgres:16
sed -n 's/.*${\([A-Z]*_IMAGE\):-\([^}]*\)}.*/\1 \2/p' docker-compose.yml | sort -u | while read -r setting image; do
    docker pull --quiet "$image" >/dev/null </dev/null
    digest=$(docker image inspect --format '{{index .RepoDigests 0}}' "$image" </dev/null)
    # with the tag, for those who read it; Docker looks only at the digest
    printf '%s=%s@%s\n' "$setting" "$image" "${digest##*@}"
done
