#!/usr/bin/env bash
# keep-images DIRECTORY IMAGE… -- FORMER…: keep an archive of the images (images.tar.gz), and while a release is unfinished one of those
# that the server or the jobs still use (former.tar.gz). Prints the archives that it writes.
set -euo pipefail
cd "$1"
shift
images=() former=()
while [[ $1 != -- ]]; do
  images+=("$1")
  shift
done
shift
# What a pruned engine does not have cannot be kept. The new images are there: this run has brought them.
for image; do if docker image inspect "$image" >/dev/null 2>&1; then former+=("$image"); fi; done
ids() { docker image inspect --format '{{.Id}}' "$@"; }

# holds ARCHIVE IMAGE…: whether the archive has these images
holds() {
  local archive=$1 id
  shift
  [[ -s $archive.tar.gz && -s $archive.ids ]] || return 1
  for id in $(ids "$@"); do grep -qxF "$id" "$archive.ids" || return 1; done
}

# write ARCHIVE IMAGE…
write() {
  local archive=$1
  shift
  docker save "$@" | gzip -1 >"$archive.tar.gz.new"
  sync "$archive.tar.gz.new"
  ids "$@" >"$archive.ids.new"
  rm -f "$archive.ids"
  mv "$archive.tar.gz.new" "$archive.tar.gz"
  mv "$archive.ids.new" "$archive.ids"
  echo "$archive"
}

if [[ ${#former[@]} -gt 0 ]] && ! holds former "${former[@]}"; then
  if holds images "${former[@]}"; then
    # The archive of the release before
    rm -f former.ids
    mv images.tar.gz former.tar.gz
    mv images.ids former.ids
    echo former
  else
    write former "${former[@]}"
  fi
fi
if ! holds images "${images[@]}" || [[ $(wc -l <images.ids) != "${#images[@]}" ]]; then write images "${images[@]}"; fi
