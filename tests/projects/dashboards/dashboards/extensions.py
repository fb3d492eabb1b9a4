"""What exists before the application does."""

from celery import Celery
from sqlalchemy import create_engine
from sqlalchemy.orm import scoped_session, sessionmaker


class Database:
    """One session for each thread, until it is removed, as Flask-SQLAlchemy has had it."""

    def init_app(self, url):
        self.engine = create_engine(url, connect_args={"timeout": 30})
        self.session = scoped_session(sessionmaker(bind=self.engine))


db = Database()
celery_app = Celery()
