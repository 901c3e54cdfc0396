"""The dashboard's pages: HTML made on the server, right without JavaScript, and livelier with it."""
