from django.apps import AppConfig
from django.core import checks


class Broken(AppConfig):
    name = "shop.broken"

    def ready(self):
        checks.register(lambda **_: [checks.Error("the shop has no till", id="shop.E001")])
