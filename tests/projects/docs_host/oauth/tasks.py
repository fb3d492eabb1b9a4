import time

from docshost.worker import app

from oauth.public import PublicTask


def same_user(request, state, context):
    return context.get("user_id") == request


@PublicTask.permission_check(same_user)
@app.task(queue="web", base=PublicTask, time_limit=900, soft_time_limit=600, ignore_result=False)
def sync_repositories(user_id, skip=False):
    """Look slow enough to be seen."""
    task = sync_repositories
    task.set_public_data({"done": 1})
    time.sleep(1)
    if skip:
        raise ValueError("the token was revoked")
    return {"done": 2}


@app.task(queue="web", time_limit=60 * 60 * 3, soft_time_limit=60 * 60 * 3 - 300, bind=True, ignore_result=False)
def sync_all_repositories(self):
    started = [sync_repositories.apply_async(kwargs={"user_id": user}, queue="web") for user in (7, 8)]
    return [each.id for each in started]
