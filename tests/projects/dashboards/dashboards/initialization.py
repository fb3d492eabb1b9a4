from typing import Any

from flask import Flask, has_app_context

from dashboards.extensions import celery_app, db


def create_app() -> Flask:
    app = Flask("dashboards")
    app.config.from_object("config")
    db.init_app(app.config["DATABASE"])
    configure_celery(app)
    return app


def configure_celery(app: Flask) -> None:
    celery_app.config_from_object(app.config["CELERY_CONFIG"])
    celery_app.set_default()
    task_base = celery_app.Task

    class AppContextTask(task_base):
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            if has_app_context():
                return task_base.__call__(self, *args, **kwargs)
            with app.app_context():
                return task_base.__call__(self, *args, **kwargs)

    celery_app.Task = AppContextTask
