"""The tests of the orders: jobs run inline, and their record lives in memory."""

from django.test import TestCase

from bakery.orders.models import Order
from jobmanager.contrib.django.test import JobsTestCase


class OrderTests(JobsTestCase, TestCase):
    """Orders and their confirmations."""

    def test_an_order_is_confirmed_once_it_is_committed(self):
        """The start waits for the end of the transaction."""
        with self.captureOnCommitCallbacks(execute=True):
            self.client.get("/order/ana/")
            self.assertFalse(Order.objects.get().is_confirmed)

        self.assertTrue(Order.objects.get().is_confirmed)

    def test_old_orders_are_forgotten_at_night(self):
        """A start by hand runs the handler, with another config."""
        Order.objects.create(customer="ana")

        run = self.jobs.trigger_job("forget-orders", {"days": 0})

        self.assertEqual(run.output, {"deleted": 1})
