"""The task types that ship."""

from typing import Any, assert_type

from taskapp.celery import app
from taskapp.tasks import add, data_processing, http_request, report_generation, send_email

assert_type(add.delay(1, 2.5).get(), int | float)
add.delay("x", 1)  # E: arg-type reportArgumentType
add.delay(1)  # E: call-arg reportCallIssue
add.delay(1, 2, z=3)  # E: call-arg reportCallIssue
assert_type(data_processing.delay({"path": "a.csv"}).get(), dict[str, Any])
assert_type(http_request.delay(request={"url": "https://example.org"}).get(), dict[str, Any])
send_email.delay("ada@example.org")  # E: call-overload reportCallIssue reportArgumentType
report_generation.s(report={"title": "flights"})
data_processing.submit_many([{"aggregation": {}}], queue="low")


@app.task(name="proj.mine")
def mine(x: int) -> str:
    return str(x)


mine.delay("x")  # E: arg-type reportArgumentType
