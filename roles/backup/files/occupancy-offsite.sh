#!/usr/bin/env bash
# occupancy-offsite REMOTE KEEP RECIPIENT…: copies the verified backup sets that are not there yet to REMOTE (rclone's name:path),
# newest first, as <set>.tar.age, encrypted for the RECIPIENTs. A copy has this name once it has been read back and is what was
# sent; until then it ends in .partial. After a run that copied something, of the copies whose sets are not here any more the
# newest KEEP stay. Nothing else there is touched. Ends at the first failure: the next run goes on from there.
set -euo pipefail
remote=$1 keep=$2
shift 2
recipients=("${@/#/--recipient=}")
setting() { sed -n "s/^OCCUPANCY_$1=//p" /opt/occupancy/.env; }
data=$(setting DATA_DIR) ops=$(setting OPS_UID)
set_name="$(setting DATABASE)-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}"

# rclone writes the tokens that it has renewed into its configuration. The file that Ansible wrote stays as it is.
scratch=$(mktemp --directory /run/occupancy/offsite.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
cp /opt/occupancy/rclone.conf "$scratch/rclone.conf"
export RCLONE_CONFIG=$scratch/rclone.conf

# The sets are read as the user whom they belong to: what looks like one may be a link to what only root may read.
as_owner() { setpriv --reuid="$ops" --regid="$ops" --clear-groups "$@"; }

# The sets with this file in them: verified.json, or damaged where one has gone bad since
sets_here() { as_owner find "$data/backups" -mindepth 2 -maxdepth 2 -name "$1" -printf '%h\n' | sed -nE "s/.*\/($set_name)$/\1/p" | sort; }
sets_there() { rclone lsf --files-only "$remote" | sed -nE "s/^($set_name)\.tar\.age$1$/\1/p" | sort; }

copy() {
  local to=$remote/$1.tar.age sent received
  sent=$({ as_owner tar --create --directory "$data/backups" "$1" | age "${recipients[@]}" | tee /dev/fd/3 \
    | rclone rcat "$to.partial"; } 3>&1 | sha256sum)
  received=$(rclone cat "$to.partial" | sha256sum)
  if [[ $sent != "$received" ]]; then
    echo "<3>$to.partial is not what was sent"
    return 1
  fi
  rclone moveto "$to.partial" "$to"
  echo "copied $1"
  local metric=$data/metrics/occupancy_offsite_copies.prom
  cat >"$metric.tmp" <<END
# HELP occupancy_offsite_last_copy_timestamp_seconds When a copy was last made and read back.
# TYPE occupancy_offsite_last_copy_timestamp_seconds gauge
occupancy_offsite_last_copy_timestamp_seconds $EPOCHSECONDS
END
  mv "$metric.tmp" "$metric"
}

rclone mkdir "$remote"
partial=$(sets_there '\.partial')
for name in $partial; do rclone deletefile "$remote/$name.tar.age.partial"; done # of a run that was cut short
here=$(sets_here verified.json)
damaged=$(sets_here damaged)
there=$(sets_there '')
new=$(comm -23 <(echo "$here") <(printf '%s\n' "$there" "$damaged" | sort) | sort --reverse)
gone=$(comm -13 <(echo "$here") <(echo "$there") | sort --reverse | tail --lines "+$((keep + 1))")
for name in $new; do
  if as_owner test -e "$data/backups/$name"; then copy "$name"; fi # retention may have removed it meanwhile
done
for name in ${new:+$gone}; do
  rclone deletefile "$remote/$name.tar.age"
  echo "removed the copy of $name"
done
