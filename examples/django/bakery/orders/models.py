"""The orders of the bakery."""

from django.db import models


class Order(models.Model):
    """An order of a customer, and whether the confirmation was sent."""

    customer = models.CharField(max_length=100)
    placed_at = models.DateTimeField(auto_now_add=True)
    is_confirmed = models.BooleanField(default=False)

    def __str__(self):
        return f"{self.customer}, {self.placed_at:%Y-%m-%d}"
