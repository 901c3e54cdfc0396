-- The owner alone has rights here; what the application's role needs, `jobmanager pg-cron install --role` grants.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA jobmanager FROM PUBLIC;
REVOKE ALL ON ALL PROCEDURES IN SCHEMA jobmanager FROM PUBLIC;
