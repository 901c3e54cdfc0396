"""Tasks of Django, of either library."""

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

done: list[object] = []


@task
def add(first, second=1):
    done.append(first)
    return first + second


@task
async def add_async(first, second=1):
    return first + second


@task(takes_context=True)
def fails_at_first(context, times):
    done.append(context.attempt)
    if context.attempt <= times:
        raise ValueError("not yet")
    return context.task_result.id


@task
def returns_a_set():
    return {1}


def no_task():
    done.append("called")
