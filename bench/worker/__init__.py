"""What runs inside the measured interpreter: a warm server, and the ranks that it forks."""
