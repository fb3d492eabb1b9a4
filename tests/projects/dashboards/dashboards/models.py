from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Query(Base):
    __tablename__ = "query"
    id: Mapped[int] = mapped_column(primary_key=True)
    sql: Mapped[str]
    status: Mapped[str] = mapped_column(default="pending")
    error: Mapped[str] = mapped_column(default="")


class Report(Base):
    __tablename__ = "report"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    working_timeout: Mapped[int | None]


class Log(Base):
    """What a task did."""

    __tablename__ = "log"
    id: Mapped[int] = mapped_column(primary_key=True)
    report_id: Mapped[int | None] = mapped_column(ForeignKey("report.id"))
    task_id: Mapped[str]
    text: Mapped[str]


class CacheEntry(Base):
    __tablename__ = "cache"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
