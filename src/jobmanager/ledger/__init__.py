"""What is written about jobs and runs, and what becomes of a due instant without a row."""
