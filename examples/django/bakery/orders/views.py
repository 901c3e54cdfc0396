"""The page that takes an order."""

from django.db import transaction
from django.http import JsonResponse

from bakery.orders.models import Order
from jobmanager.contrib.django import jobs


@transaction.atomic
def order(request, customer):
    """Take an order, and have it confirmed once it is committed."""
    placed = Order.objects.create(customer=customer)
    key = jobs.trigger_job("confirm-order", {"order": placed.id}, on_commit=True)
    return JsonResponse({"order": placed.id, "key": key})
