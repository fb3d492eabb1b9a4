"""What ``celery --app`` is given: the application first, so that task modules can read its configuration."""

import sys

from celery.signals import task_postrun, worker_process_init

from dashboards import create_app
from dashboards.extensions import celery_app, db

flask_app = create_app()
app = celery_app
flask_app.app_context().push()


@worker_process_init.connect
def reset_connection_pool(**_):
    with flask_app.app_context():
        db.engine.dispose()
    sys.stdout.write(f"disposed: {flask_app.name}\n")


@task_postrun.connect
def teardown(retval, *args, **kwargs):
    if not isinstance(retval, Exception):
        db.session.commit()
    db.session.remove()
