from django.conf import settings
from docshost.worker import app


@app.task(queue="reindex")
def index_build(build_id):
    folder = settings.HERE / "index"
    folder.mkdir(exist_ok=True)
    (folder / str(build_id)).touch()


@app.task(queue="web", ignore_result=False)
def index_objects(model, ids, index):
    return {"index": index, "model": model, "count": len(ids)}


@app.task(queue="web", ignore_result=False)
def switch_index(index, new):
    return f"{index} -> {new}"


@app.task(queue="web")
def delete_old_queries():
    (settings.HERE / "queries-deleted").touch()


def indexing_tasks(count, size, index):
    """Yield the signatures that index all objects."""
    for start in range(0, count, size):
        yield index_objects.si("page", list(range(start, min(start + size, count))), index=index)
