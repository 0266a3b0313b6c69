"""What is measured: pure functions of what was answered and what should have been."""
