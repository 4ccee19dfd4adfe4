"""What is measured: time, memory, collectives, gradient error."""
