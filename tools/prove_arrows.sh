#!/bin/bash
# Proves that the build itself refuses a dependency against the arrows between the rooms: tools/prove_arrows.sh
# A package mappings/wrong, which lies outside of the checkout, needs a module of converters; then one of mappings, which
# must be allowed, so that a refusal has no other reason. Nothing is built, only analysed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

analyse() { # DEPENDENCY: whether mappings/wrong may have it; what Bazel says is in $scratch/said
  mkdir -p "$scratch/mappings/wrong"
  cat >"$scratch/mappings/wrong/BUILD.bazel" <<BUILD
load("@rules_python//python:py_library.bzl", "py_library")

py_library(
    name = "wrong",
    deps = ["$1"],
)
BUILD
  tools/bazel build --nobuild --noshow_progress --color=no "--package_path=%workspace%:$scratch" //mappings/wrong \
    >"$scratch/said" 2>&1
}

analyse //mappings:catalog || { cat "$scratch/said"; echo "tools/prove_arrows.sh: not even mappings may be used" >&2; exit 1; }
for target in //converters:convert_checkpoint //converters/engine:plan //converters/formats:regions; do
  if analyse "$target"; then
    echo "tools/prove_arrows.sh: mappings may use $target" >&2
    exit 1
  fi
  grep -F "'$target' is not visible" "$scratch/said" >/dev/null ||
    { cat "$scratch/said"; echo "tools/prove_arrows.sh: refused for another reason" >&2; exit 1; }
  echo "mappings -> $target: refused"
done
