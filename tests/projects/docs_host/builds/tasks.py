import signal
import time
from dataclasses import dataclass

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_task_logger
from django.conf import settings
from django.db.models import F
from docshost.worker import app
from search.tasks import index_build

from builds.locks import cache_lock
from builds.models import Build, Limit, Note, note
from builds.requests import BuildRequest

log = get_task_logger(__name__)


class BuildUserError(Exception):
    pass


class BuildCanceled(BuildUserError):
    pass


class LimitReached(BuildUserError):
    pass


class RepositoryLocked(Exception):
    pass


@dataclass(slots=True)
class TaskData:
    """What the hooks of one run share: a task object is made once for each process."""

    build: Build | None = None
    start_time: float | None = None


class SyncRepository(Task):
    name = f"{__name__}.sync_repository"
    max_retries = 5
    default_retry_delay = 7 * 60
    throws = (RepositoryLocked,)

    def before_start(self, task_id, args, kwargs):
        self.data = TaskData(build=Build.objects.get(pk=args[0]))

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        note(self, f"not synced: {type(exc).__name__}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        note(self, f"after {status}")

    def execute(self):
        sync_versions.delay(self.data.build.project, tags=["v1", "v2"])


@app.task(base=SyncRepository, bind=True)
def sync_repository(self, build_id, *, api_key, **kwargs):
    if kwargs:
        log.warning("extra arguments %s", sorted(kwargs))
    with cache_lock(f"{self.name}-lock-{self.data.build.project}", 60, self.app.oid) as taken:
        if not taken:
            raise RepositoryLocked(self.data.build.project)
        self.execute()


class UpdateDocs(Task):
    name = f"{__name__}.update_docs"
    autoretry_for = (LimitReached,)
    max_retries = settings.MAX_RETRIES
    default_retry_delay = settings.RETRY_DELAY
    retry_backoff = False
    throws = (BuildUserError, SoftTimeLimitExceeded)
    acks_late = True
    track_started = True
    time_limit = None
    soft_time_limit = None
    Request = BuildRequest

    def _set_up_signals(self):
        def canceled(*_):
            raise BuildCanceled("by its user")

        def terminated(*_):
            log.warning("SIGTERM: the build goes on")

        signal.signal(signal.SIGTERM, terminated)
        signal.signal(signal.SIGINT, canceled)

    def before_start(self, task_id, args, kwargs):
        self.data = TaskData(start_time=time.monotonic())
        set_protection.delay(build_id=args[0], protected=True)
        Build.objects.filter(pk=args[0]).update(tries=F("tries") + 1)
        self.data.build = Build.objects.get(pk=args[0])
        self._set_up_signals()
        limit = Limit.objects.filter(project=self.data.build.project).first()
        if limit and self.data.build.tries <= limit.free_after:
            self.retry(exc=LimitReached("too many builds"))

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        if isinstance(exc, BuildCanceled):
            self.data.build.state = "canceled"
        self.data.build.success = False
        send_notifications.delay(self.data.build.pk, f"failed: {type(exc).__name__}")
        if self.data.build.commit:
            send_status.delay(self.data.build.pk, self.data.build.commit, "failure")

    def on_success(self, retval, task_id, args, kwargs):
        index_build.delay(build_id=self.data.build.pk)
        send_notifications.delay(self.data.build.pk, "passed")
        self.data.build.success = True

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        note(self, f"delayed: {exc}")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        if self.data.build.state != "canceled":
            self.data.build.state = "triggered" if status == "RETRY" else "finished"
        self.data.build.save(update_fields=["state", "success"])
        note(self, f"after {status}")
        set_protection.delay(build_id=self.data.build.pk, protected=False)


@app.task(base=UpdateDocs, bind=True, ignore_result=True)
def update_docs(self, build_id, *, api_key, seconds=0.0, **kwargs):
    if kwargs:
        log.warning("extra arguments %s", sorted(kwargs))
    build = self.data.build
    build.state = "building"
    build.save(update_fields=["state"])  # the task id may not be in this copy yet
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.02)
    if build.project == "broken":
        raise BuildUserError("no index.html")
    folder = settings.HERE / "html"
    folder.mkdir(exist_ok=True)
    (folder / f"{build.pk}.html").write_text(f"{build.project} {build.commit}")


@app.task(max_retries=1, default_retry_delay=60, queue="web", bind=True)
def sync_versions(self, project, tags, **kwargs):
    note(self, f"{project} has {tags}")


@app.task(max_retries=3, default_retry_delay=0.1, queue="web", bind=True)
def send_status(self, build_id, commit, status):
    note(self, f"status {status}, retry {self.request.retries}")
    if self.request.retries < 2:
        raise self.retry(exc=ConnectionError("the git host is away"))


@app.task(queue="web", bind=True)
def send_notifications(self, build_id, event):
    note(self, f"build {event}")


@app.task(queue="web", bind=True)
def set_protection(self, build_id, protected):
    note(self, f"protected {protected}")


@app.task(queue="web", bind=True)
def archive_builds(self, days=14, limit=200):
    with cache_lock(f"{self.name}-lock", 60, self.app.oid) as taken:
        if not taken:
            return False
        done = Build.objects.filter(archived=False, state="finished").order_by("pk")[:limit]
        return [Build.objects.filter(pk=each.pk).update(archived=True) for each in done]


@app.task()
def finish_unhealthy_builds():
    for build in Build.objects.filter(state="building", project="unhealthy").exclude(task_id=""):
        Build.objects.filter(pk=build.pk).update(state="unhealthy")
        app.control.revoke(build.task_id, signal="SIGINT", terminate=True)


@app.task(queue="web", time_limit=5)
def send_email(recipient, subject, content_html=None, **kwargs):
    (settings.HERE / "outbox").mkdir(exist_ok=True)
    (settings.HERE / "outbox" / recipient).write_text(subject)


def prepare_build(project, *, commit="", queue=None, limit_seconds=60, acks_late=None, countdown=None, **more):
    """Return the signature of a build and its row."""
    build = Build.objects.create(project=project, commit=commit)
    options = {"soft_time_limit": limit_seconds, "time_limit": int(limit_seconds * 2)}
    if queue:
        options["queue"] = queue
    if countdown:
        options |= {"countdown": countdown, "max_retries": settings.MAX_RETRIES}
    if acks_late is not None:
        options["acks_late"] = acks_late
    for running in Build.objects.filter(project=project, state__in=("triggered", "building")).exclude(pk=build.pk):
        cancel_build(running)
    kwargs = {"api_key": "k", **more}
    return update_docs.signature(args=(build.pk,), kwargs=kwargs, options=options, immutable=True), build


def trigger_build(project, **options):
    signature, build = prepare_build(project, **options)
    build.task_id = signature.apply_async().id
    Build.objects.filter(pk=build.pk).update(task_id=build.task_id)
    return build


def cancel_build(build):
    terminate = build.state != "triggered"
    if not terminate:
        Build.objects.filter(pk=build.pk).update(state="canceled", success=False)
    app.control.revoke(build.task_id, signal="SIGINT", terminate=terminate)


def notes_of(task_id):
    return list(Note.objects.filter(task_id=task_id).order_by("pk").values_list("text", flat=True))
