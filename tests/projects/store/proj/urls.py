from celery.result import AsyncResult
from django.http import JsonResponse
from django.urls import path

from orders.tasks import place


def order(request, number):
    return JsonResponse({"id": place.delay(number).id})


def result(request, task_id):
    found = AsyncResult(task_id)
    return JsonResponse({"state": found.state, "ready": found.ready()})


urlpatterns = [path("order/<int:number>", order), path("result/<task_id>", result)]
