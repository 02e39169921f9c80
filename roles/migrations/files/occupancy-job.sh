#!/usr/bin/env bash
# occupancy-job NAME SECONDS COMMAND…: run a scheduled job, one at a time and for at most SECONDS. The output is written to the
# journal (journalctl -t occupancy-NAME), the result to metrics/occupancy_NAME.prom. Exits with the exit code of the command.
# 9 is not a failure: another command holds a lock, and the next run tries again.
set -euo pipefail
umask 022
job=$1 limit=$2
shift 2
setting() { sed -n "s/^OCCUPANCY_$1=//p" /opt/occupancy/.env; }
data=$(setting DATA_DIR) ops=$(setting OPS_UID)
others=$(setting OTHER_DATABASES | tr , ' ')
OCCUPANCY_CONTAINER=$(setting PROJECT)-$job
export OCCUPANCY_CONTAINER # occupancy-db gives its container this name
metrics=$data/metrics/occupancy_$job.prom

# A container continues to run when the client that started it is killed. The time limits keep an engine that hangs from
# blocking the job. Usually the container does not exist any more, so errors of docker are ignored.
end_container() {
  timeout 30 docker stop -t 15 "$OCCUPANCY_CONTAINER" || true
  timeout 30 docker rm --force "$OCCUPANCY_CONTAINER" || true
} >/dev/null 2>&1

metric() { printf '# HELP %s %s\n# TYPE %s gauge\n%s{job="%s"} %s\n' "$1" "$2" "$1" "$1" "$job" "$3"; }

# Copy the metrics of backups: collect [-DATABASE]. The file is read as the tools' user and up to 1 MB only: that user could have
# replaced it with a link to a file that only root may read, with a pipe, or with a file without end. From its directory: role occupancy
# may keep an account with this id out of those above it.
collect() {
  local from=.backup${1:-}.prom to=$data/metrics/occupancy_backups${1:-}.prom
  cd "$data/backups" || return 0
  [[ -e $from ]] || return 0
  # If the file cannot be read, the metrics of the previous run stay.
  timeout 10 setpriv --reuid="$ops" --regid="$ops" --clear-groups head --bytes 1M "$from" >"$to.$job" || true
  if [[ -s $to.$job ]]; then mv "$to.$job" "$to"; else rm "$to.$job"; fi
}

run() {
  local code=0 start=$EPOCHSECONDS end success level=5
  exec 9>"/run/occupancy/$job.lock"
  if ! flock --nonblock 9; then
    echo "<4>skipped: the previous run has not ended yet"
    return 9
  fi
  end_container # of an interrupted run
  timeout --kill-after=15 "$limit" "$@" </dev/null || code=$?
  end_container
  collect
  for database in $others; do collect "-$database"; done
  end=$EPOCHSECONDS
  # The first run has no metrics file yet.
  success=$(awk '/^occupancy_job_last_success/ {print $2}' "$metrics" 2>/dev/null || true)
  case $code in
    0) success=$end ;;
    9) level=4 ;;
    *) level=3 ;;
  esac
  {
    metric occupancy_job_last_start_timestamp_seconds "Start of the last run." "$start"
    metric occupancy_job_last_success_timestamp_seconds "End of the last successful run; 0 if there was none." "${success:-0}"
    metric occupancy_job_last_exit_code "Exit code of the last run; 9 means skipped, 124 and 137 mean that the time limit was reached." "$code"
    metric occupancy_job_last_duration_seconds "Duration of the last run." "$((end - start))"
  } >"$metrics.tmp"
  mv "$metrics.tmp" "$metrics"
  echo "<$level>ended with exit code $code after $((end - start)) s"
  return "$code"
}

# Log each line with its severity, and print it to the terminal for manual runs; cron sends no mail (MAILTO).
run "$@" 2>&1 | logger --tag "occupancy-$job" --prio-prefix --socket-errors=off --stderr
