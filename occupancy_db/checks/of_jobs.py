"""The checks of the scheduled jobs."""

from occupancy_db.checks.evidence import Evaluate, Evidence, of_host
from occupancy_db.checks.host import Host, Job
from occupancy_db.checks.judging import counted, duration, judge, level_of, result, skipped
from occupancy_db.checks.model import STALE_INTERVALS, Check, Level, Result
from occupancy_db.exit_codes import ExitCode

_OTHERS = ("check-schema", "checks")
"""Jobs with a check of their own: drift and checks."""

_HARMLESS = {ExitCode.OK, ExitCode.LOCKED}


def _cron(check: Check, evidence: Evidence, host: Host) -> Result:
    del evidence
    return result(
        check, *((Level.GOOD, "runs") if host.cron else (Level.BAD, "does not run: no job is started"))
    )


def _checks(check: Check, evidence: Evidence, host: Host) -> Result:
    """How old the last run of the job is; the results of this evaluation are new."""
    job = host.job("checks")
    if job is None:
        return result(check, Level.BAD, "the job checks is not scheduled")
    if evidence.scheduled:
        return result(check, Level.GOOD, f"runs every {duration(host.interval)}", value=0)
    if evidence.previous is None:
        if job.missed >= STALE_INTERVALS:
            return result(check, Level.BAD, f"the job has missed {counted(job.missed, 'run')}")
        return skipped(check, "the job has not run yet")
    age = evidence.age(evidence.previous.time)
    if abs(age) > STALE_INTERVALS * host.interval:
        return result(check, Level.BAD, f"the job ran last {duration(age)} ago", value=round(age))
    return result(check, Level.GOOD, f"runs every {duration(host.interval)}", value=max(0, round(age)))


def _jobs(check: Check, evidence: Evidence, host: Host) -> Result:
    jobs = [job for job in host.jobs if job.name not in _OTHERS]
    if not jobs:
        return result(check, Level.BAD, "no job is scheduled")
    bad = [job for job in jobs if _level(check, job) is Level.BAD]
    late = [job for job in jobs if _level(check, job) is Level.WARNING]
    worst = max(job.missed for job in jobs)
    details = [f"{job.name}: {_ended(job, evidence)}" for job in bad + late]
    if bad or late:
        names = ", ".join(job.name for job in bad + late)
        summary = f"{counted(len(bad + late), 'job')} failed or overdue: {names}"
        return result(check, Level.BAD if bad else Level.WARNING, summary, *details, value=worst)
    return judge(check, worst, f"{counted(len(jobs), 'job')} in time")


def _level(check: Check, job: Job) -> Level:
    """A failure is bad at once. The job users ends with 13 when it has put something right."""
    level = level_of(check, job.missed)
    code = job.last_exit_code
    if job.name == "users" and code == ExitCode.DIFFERENT:
        return level
    return level if code is None or code in _HARMLESS else Level.BAD


def _ended(job: Job, evidence: Evidence) -> str:
    success = (
        f"last success {duration(evidence.age(job.last_success))} ago"
        if job.last_success
        else "never succeeded"
    )
    code = "" if job.last_exit_code is None else f", exit code {job.last_exit_code}"
    return f"{success}{code}, {counted(job.missed, 'run')} missed"


EVALUATIONS: dict[str, Evaluate] = {
    "checks": of_host(_checks),
    "cron": of_host(_cron),
    "jobs": of_host(_jobs),
}
