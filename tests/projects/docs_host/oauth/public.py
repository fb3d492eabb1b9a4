from celery import Task, states


class PublicTask(Task):
    """A task whose progress its user may read: data in the request, states in the result store."""

    def get_task_data(self):
        context = self.request.get("permission_context", {})
        return states.STARTED, {"name": self.name, "context": context, "data": self.request.get("public_data", {})}

    def update_progress_data(self):
        state, info = self.get_task_data()
        self.update_state(state=state, meta=info)

    def set_permission_context(self, context):
        self.request.update(permission_context=context)
        self.update_progress_data()

    def set_public_data(self, data):
        self.request.update(public_data=data)
        self.update_progress_data()

    def __call__(self, *args, **kwargs):
        raised = result = None
        self.set_permission_context(kwargs)
        try:
            result = self.run(*args, **kwargs)
        except Exception as error:
            raised = error
        _, info = self.get_task_data()
        if raised:
            info["error"] = str(raised)
        elif result is not None:
            self.set_public_data(result)
        return info

    @staticmethod
    def permission_check(check):
        def decorator(task):
            task.check_permission = check
            return task

        return decorator
