"""A Flask application with tasks, as its documentation shows it."""

from __future__ import annotations

import os

from celery import shared_task
from flask import Flask, current_app

from taskapp.flask import celery_init_app


def create_app() -> Flask:
    app = Flask("shop")
    app.config.from_mapping(CURRENCY="EUR", CELERY={"broker_url": os.environ["SHOP_BROKER"]})
    celery_init_app(app)
    return app


@shared_task(name="shop.function")
def function(x: int) -> str:
    return f"{x} {current_app.config['CURRENCY']}"


@shared_task(name="shop.coroutine")
async def coroutine(x: int) -> str:
    return f"{x} {current_app.config['CURRENCY']}"


@shared_task(name="shop.child", cpu_bound=True)
def child(x: int) -> str:
    return f"{x} {current_app.config['CURRENCY']}"


celery_app = create_app().extensions["celery"]
