#!/bin/bash
# Installs Debian's newest Bazel into a folder of its own, with its loader, libraries and Java, so that it runs on an
# older Debian: tools/install_bazel.sh PREFIX
# The path is written into the programs: PREFIX cannot be moved. Needs root, apt and x86_64; takes about two minutes.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
prefix=$(realpath -m "$1")
fail() { echo "tools/install_bazel.sh: $1" >&2; exit 2; }

command -v apt-get >/dev/null || fail "only Debian's packages are known here, and there is no apt-get; install bazelisk instead"
[ "$(uname -m)" = x86_64 ] || fail "these packages are for x86_64, not $(uname -m); install bazelisk instead"
[ "$(id -u)" = 0 ] || fail "unpacking Debian packages into $prefix needs root; run this once as root, or install bazelisk"

missing=()
for program in mmdebstrap patchelf; do
  command -v "$program" >/dev/null || missing+=("$program")
done
[ -e /etc/ssl/certs/java/cacerts ] || missing+=(ca-certificates-java)
if ((${#missing[@]})); then
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
fi

# The mirror that apt uses here for its own release also has the unstable one.
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $codename" | sort -u | head -1)
[ -n "$mirror" ] || fail "apt knows no mirror for $codename; run apt-get update, or name one in /etc/apt"

unpacked=$prefix.unpacked
trap 'rm -rf "$unpacked"' EXIT
rm -rf "$unpacked" "$prefix"
mkdir -p "$(dirname "$prefix")"
rules=(bazel-features bazel-platforms bazel-rules-{cc,java,license,pkg,proto,python,shell} bazel-skylib)
packages=(bazel-bootstrap bazel-bootstrap-data default-jdk-headless "${rules[@]}")
# A mirror may keep an unstable release past the date to which its index is valid; signatures are checked all the same.
LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin mmdebstrap --quiet --variant=extract --include="$(IFS=,; echo "${packages[*]}")" \
  --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
  sid "$unpacked" "$mirror"
/usr/bin/python3 -I "$here/bazel_prefix.py" "$unpacked" "$prefix"
