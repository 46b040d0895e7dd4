#!/bin/bash
# Makes the base image of the airgap build: a Debian bookworm root with Python, its libraries and nothing else.
#   container/base/debian_root.sh CACHE [--record]     prints the folder with root.tar.gz and packages.txt
# debian_root.lock pins the digest of the root and names its packages. A mirror moves on with security updates: then this
# says what differs and goes on, or fails where RECAST_BASE_STRICT is set, as releases do. --record renews the lock.
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
fail() { echo "container/base/debian_root.sh: $1" >&2; exit 1; }
recipe=$(cat "$here/debian_root.sh" "$here/debian_root.py" | sha256sum | cut -c1-12)
folder=$1/base-$recipe
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9

if [ ! -e "$folder/root.tar.gz" ]; then
  [ "$(id -u)" = 0 ] || fail "making the base image needs root"
  command -v mmdebstrap >/dev/null || {
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update && apt-get -qq install -y --no-install-recommends mmdebstrap >/dev/null
  } || fail "mmdebstrap is needed and could not be installed"
  # The mirrors that apt uses here, with updates and security.
  sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) main' 'Created-By: Packages' |
    grep -E ' bookworm(-updates|-security)? main$' | sort -u) || fail "apt knows no mirror for bookworm"
  packages=(ca-certificates libstdc++6 python3.11 tzdata)
  # Unpacked, not installed: no package brings a shell, and none of their scripts needs one.
  unpacked=$folder/unpacked
  trap 'rm -rf "$unpacked"' EXIT
  rm -rf "$unpacked"
  LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin mmdebstrap --quiet --variant=extract --format=directory \
    --include="$(IFS=,; echo "${packages[*]}")" --aptopt='Acquire::Check-Valid-Until "false"' \
    --aptopt='APT::Install-Recommends "false"' --skip=cleanup/apt,download/empty,output/dev \
    bookworm "$unpacked" - <<<"$sources" >&2
  /usr/bin/python3.11 -s "$here/debian_root.py" "$unpacked" "$folder/packages.new" "$folder/root.tar"
  { echo "sha256:$(sha256sum <"$folder/root.tar" | cut -d' ' -f1)"; cat "$folder/packages.new"; } >"$folder/root.lock"
  mv "$folder/packages.new" "$folder/packages.txt"
  gzip -n "$folder/root.tar"
fi
[ "${2:-}" != --record ] || cp "$folder/root.lock" "$here/debian_root.lock"
if ! cmp -s "$folder/root.lock" "$here/debian_root.lock"; then
  echo "the base image differs from container/base/debian_root.lock:" >&2
  diff "$here/debian_root.lock" "$folder/root.lock" >&2 || true
  [ -z "${RECAST_BASE_STRICT:-}" ] || exit 1
fi
echo "$folder"
