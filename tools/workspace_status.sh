#!/bin/sh
# What a release says about the files that it was made from; Bazel runs this in the checkout (see .bazelrc, release).
set -eu
revision=$(git rev-parse HEAD)
[ -z "$(git status --porcelain)" ] || revision=$revision-modified
echo "STABLE_REVISION $revision"
echo "STABLE_CREATED $(TZ=UTC0 git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)"
# Without a user's name or a token, which a remote may hold.
source=$(git config --get remote.origin.url | sed -n 's#^https://\([^/@]*@\)\{0,1\}#https://#p' || true)
echo "STABLE_SOURCE ${source:-unknown}"
