"""taskapp in a Django project: add ``taskapp.django`` to ``INSTALLED_APPS``.

``outbox`` submits tasks in the current transaction; ``models`` has its table; ``manage.py taskapp_outbox`` relays it.
"""
