"""The submitting side: from ``delay()`` to the engine, also from the event loop of a web app.

``submitter`` drives a submit. ``submit_config`` is the part of the configuration it depends on; ``template`` and
``packed_template`` build the message, ``protocol`` its headers, ``sent_event`` its event; ``sender`` passes it to the
engine. ``canvas`` sends groups, ``batches`` many tasks of one type, ``async_pusher`` pushes for coroutines, and
``results`` are the results they await.
"""
