"""The addresses of the bakery: its orders, and the dashboard of its jobs within the admin."""

from django.contrib import admin
from django.urls import include, path

from bakery.orders.views import order

urlpatterns = [
    path("order/<str:customer>/", order),
    path("admin/jobs/", include("jobmanager.contrib.django.dashboard_urls")),
    path("admin/", admin.site.urls),
]
