#!/usr/bin/env bash
# occupancy-offsite REMOTE KEEP RECIPIENT…: copy the verified backup sets that REMOTE (rclone's name:path) does not have, newest
# first, as <set>.tar.age, encrypted for the RECIPIENTs. The name of a copy ends in .partial until the copy was read back and
# compared. After a run that copied a set, only the newest KEEP copies of sets of a database that this host has removed are kept, and
# those whose names say a time in the future, because a clock was ahead. Other files are not changed. The script ends at the first failure; the
# next run continues from there.
set -euo pipefail
remote=$1 keep=$2
shift 2
recipients=("${@/#/--recipient=}")
setting() { sed -n "s/^OCCUPANCY_$1=//p" /opt/occupancy/.env; }
data=$(setting DATA_DIR) ops=$(setting OPS_UID)
databases=$(setting DATABASE),$(setting OTHER_DATABASES)

# rclone writes the tokens that it renews into its configuration, and a service may accept the one before no more. So it has a copy of
# Ansible's file for its own, which stays until that file changes. `of` names the file that the copy was made of.
given=/opt/occupancy/rclone.conf own=/opt/occupancy/rclone
digest=$(sha256sum <"$given")
if [[ ! -s $own/rclone.conf || $(cat "$own/of" 2>/dev/null) != "$digest" ]]; then
  [[ -d $own ]] || mkdir --mode=0700 "$own"
  cp --preserve=mode "$given" "$own/new"
  mv "$own/new" "$own/rclone.conf"
  echo "$digest" >"$own/of"
fi
export RCLONE_CONFIG=$own/rclone.conf

# The sets are read as their owner, because a set could be a link to files that only root may read. In their directory, since role
# occupancy may keep an account with this id out of those above it.
as_owner() { (cd "$data/backups" && setpriv --reuid="$ops" --regid="$ops" --clear-groups "$@"); }

# The sets that contain a file: verified.json, or damaged for sets that were found damaged later
sets_here() { as_owner find . -mindepth 2 -maxdepth 2 -name "$1" -printf '%h\n' | sed -nE "s/.*\/($set_name)$/\1/p" | sort; }
sets_there() { rclone lsf --files-only "$remote" | sed -nE "s/^($set_name)\.tar\.age$1$/\1/p" | sort; }

# Names that are not in the future
past() { awk -F - -v now="$(date --utc +%Y%m%dT%H%M%SZ)" 'NF > 2 && $(NF - 1) <= now'; }

copy() {
  local to=$remote/$1.tar.age sent received
  sent=$({ as_owner tar --create "$1" | age "${recipients[@]}" | tee /dev/fd/3 \
    | rclone rcat "$to.partial"; } 3>&1 | sha256sum)
  received=$(rclone cat "$to.partial" | sha256sum)
  if [[ $sent != "$received" ]]; then
    echo "<3>$to.partial differs from the data that were sent"
    return 1
  fi
  rclone moveto "$to.partial" "$to"
  echo "copied $1"
  local metric=$data/metrics/occupancy_offsite_copies.prom
  cat >"$metric.tmp" <<END
# HELP occupancy_offsite_last_copy_timestamp_seconds Time of the last copy that was read back.
# TYPE occupancy_offsite_last_copy_timestamp_seconds gauge
occupancy_offsite_last_copy_timestamp_seconds $EPOCHSECONDS
END
  mv "$metric.tmp" "$metric"
}

# Copy the sets of one database, and remove the copies of it that are not kept.
copy_database() {
  local name partial here damaged there new gone
  set_name="$1-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}"
  partial=$(sets_there '\.partial')
  for name in $partial; do rclone deletefile "$remote/$name.tar.age.partial"; done # of an interrupted run
  here=$(sets_here verified.json)
  damaged=$(sets_here damaged)
  there=$(sets_there '')
  new=$(comm -23 <(echo "$here") <(printf '%s\n' "$there" "$damaged" | sort) | sort --reverse)
  gone=$(comm -13 <(echo "$here") <(echo "$there") | past | sort --reverse | tail --lines "+$((keep + 1))")
  for name in $new; do
    if as_owner test -e "$name"; then copy "$name"; fi # retention may have removed the set meanwhile
  done
  for name in ${new:+$gone}; do
    rclone deletefile "$remote/$name.tar.age"
    echo "removed the copy of $name"
  done
}

rclone mkdir "$remote"
for database in ${databases//,/ }; do copy_database "$database"; done
