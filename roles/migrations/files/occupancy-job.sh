#!/usr/bin/env bash
# occupancy-job NAME SECONDS COMMAND…: one job as it must run where nobody looks on. Never twice at the same time, never
# longer than SECONDS; what it says goes to the log (journalctl -t occupancy-NAME), how it went to metrics/occupancy_NAME.prom.
# Ends with the command's exit code. 9 is no fault: somebody else was at work, and the next run tries again.
set -euo pipefail
umask 022
job=$1 limit=$2
shift 2
export OCCUPANCY_JOB=$job # occupancy-db names its container after it
setting() { sed -n "s/^OCCUPANCY_$1=//p" /opt/occupancy/.env; }
data=$(setting DATA_DIR) ops=$(setting OPS_UID)
metrics=$data/metrics/occupancy_$job.prom

# The container belongs to the engine, and goes on when the client that started it is killed. An engine that hangs must
# not hold up the job. Most often there is no such container any more, which is an error to docker and none here.
end_container() {
  timeout 30 docker stop -t 15 "occupancy-$job" || true
  timeout 30 docker rm --force "occupancy-$job" || true
} >/dev/null 2>&1

metric() { printf '# HELP %s %s\n# TYPE %s gauge\n%s{job="%s"} %s\n' "$1" "$2" "$1" "$1" "$job" "$3"; }

# What the tools have to say of the backups, once they have made one. Read as their user: what lies there under this name may
# be a link to what only root may read, a pipe, or without end.
collect() {
  local from=$data/backups/.backup.prom to=$data/metrics/occupancy_backups.prom
  [[ -e $from ]] || return 0
  # What cannot be read leaves nothing behind, and the metrics of the run before stay.
  timeout 10 setpriv --reuid="$ops" --regid="$ops" --clear-groups head --bytes 1M "$from" >"$to.$job" || true
  if [[ -s $to.$job ]]; then mv "$to.$job" "$to"; else rm "$to.$job"; fi
}

run() {
  local code=0 start=$EPOCHSECONDS end success level=5
  exec 9>"/run/occupancy/$job.lock"
  if ! flock --nonblock 9; then
    echo "<4>skipped: the run before this one is still at work"
    return 9
  fi
  end_container # of a run that could not do it itself
  timeout --kill-after=15 "$limit" "$@" </dev/null || code=$?
  end_container
  collect
  end=$EPOCHSECONDS
  # The first run has no file to look into.
  success=$(awk '/^occupancy_job_last_success/ {print $2}' "$metrics" 2>/dev/null || true)
  case $code in
    0) success=$end ;;
    9) level=4 ;;
    *) level=3 ;;
  esac
  {
    metric occupancy_job_last_start_timestamp_seconds "When the last run began." "$start"
    metric occupancy_job_last_success_timestamp_seconds "When a run last succeeded; 0 is never." "${success:-0}"
    metric occupancy_job_last_exit_code "How the last run ended; 9 is no fault, 124 and 137 are the time limit." "$code"
    metric occupancy_job_last_duration_seconds "How long the last run took." "$((end - start))"
  } >"$metrics.tmp"
  mv "$metrics.tmp" "$metrics"
  echo "<$level>ended with exit code $code after $((end - start)) s"
  return "$code"
}

# Each line with its severity. To the terminal too, for who runs it by hand; cron has no mail to send (MAILTO).
run "$@" 2>&1 | logger --tag "occupancy-$job" --prio-prefix --socket-errors=off --stderr
