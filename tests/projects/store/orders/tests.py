"""The project's own tests, without a broker: EAGER=1 manage.py test."""

from celery.result import AsyncResult
from django.test import TestCase, override_settings

from accounts.tasks import MailError, send_broken, send_receipt
from orders.tasks import checkout, place
from proj import celery_app
from reports.tasks import report


class Tests(TestCase):
    def test_tasks_run_at_once(self):
        assert celery_app.conf.task_always_eager
        assert place.delay(1).get() == "placed 1"
        assert checkout(2).apply_async().get() == "shipped 2 express"

    def test_retries(self):
        assert send_receipt.apply(args=("ada",), throw=False).get() == "receipt ada after 1"

    def test_errors_propagate(self):
        with self.assertRaises(MailError) as raised:
            send_broken.delay("ada")
        assert (raised.exception.code, raised.exception.address) == (550, "ada")

    def test_chord(self):
        assert report("eager.txt", 3).apply_async().get() is True

    def test_apply(self):
        result = place.apply(args=(3,))
        assert (result.state, result.get()) == ("SUCCESS", "placed 3")

    @override_settings(DEBUG=True)
    def test_view(self):
        task_id = self.client.get("/order/4").json()["id"]
        assert isinstance(celery_app.AsyncResult(task_id), AsyncResult)
