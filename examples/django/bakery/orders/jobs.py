"""The jobs of the orders: found by the application jobmanager.contrib.django when Django is set up."""

from datetime import timedelta

from django.utils import timezone

from bakery.orders.models import Order
from jobmanager import RunContext
from jobmanager.contrib.django import jobs


@jobs.job("forget-orders", cron="0 3 * * *", timezone="Europe/Berlin", config={"days": 30})
def forget_orders(context: RunContext, days: int) -> dict[str, int]:
    """Delete old orders, every night."""
    deleted, _ = Order.objects.filter(placed_at__lt=timezone.now() - timedelta(days=days)).delete()
    context.log.info("%d orders are forgotten", deleted)
    return {"deleted": deleted}


@jobs.job("confirm-order", overlap="allow")
def confirm_order(order: int) -> str:
    """Confirm one order; started by the view that takes it."""
    Order.objects.filter(id=order).update(is_confirmed=True)
    return Order.objects.get(id=order).customer
