"""A Flask application with jobs: an application factory, the extension, and a view that starts a run."""

import sqlite3

from flask import Flask, current_app, g

from jobmanager.contrib.flask import Jobs

jobs = Jobs()


def database():
    """Return the connection of this application context, closed with it."""
    if "database" not in g:
        g.database = sqlite3.connect(current_app.config["CARTS"])
        g.database.execute("CREATE TABLE IF NOT EXISTS cart (owner TEXT, is_sent INTEGER DEFAULT 0)")
    return g.database


@jobs.job("forget-carts", cron="0 3 * * *", timezone="Europe/Berlin")
def forget_carts() -> int:
    """Delete the carts that were sent, every night: inside the application context, as in a view."""
    with database() as carts:
        return carts.execute("DELETE FROM cart WHERE is_sent").rowcount


@jobs.job("send-cart", overlap="allow")
def send_cart(owner: str) -> str:
    """Send one cart; started by the view."""
    with database() as carts:
        carts.execute("UPDATE cart SET is_sent = 1 WHERE owner = ?", [owner])
    return f"to {owner}"


def create_app(**config: object) -> Flask:
    """Make the application. Its configuration has the settings of jobs as JOBMANAGER_..."""
    app = Flask(__name__)
    app.config.from_mapping(CARTS="carts.db", JOBMANAGER_AUTOSTART=True)
    app.config.from_mapping(config)
    jobs.init_app(app)

    @app.teardown_appcontext
    def close(_error):
        if "database" in g:
            g.database.close()

    @app.post("/cart/<owner>")
    def order(owner):
        with database() as carts:
            carts.execute("INSERT INTO cart (owner) VALUES (?)", [owner])
        return {"run": jobs.trigger_job("send-cart", {"owner": owner}).id}

    return app
