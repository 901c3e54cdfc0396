"""The addresses of the project of `examples/django`, and the endpoint at two places."""

from bakery.urls import urlpatterns as of_the_bakery
from django.urls import include, path

endpoint = "jobmanager.contrib.django.urls"
urlpatterns = [
    path("jobs/", include(endpoint)),
    path("deep/down/", include(endpoint, namespace="deep")),
    *of_the_bakery,
]
