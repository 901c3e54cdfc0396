"""The SQL stores: tables, rows, statements."""
