"""What makes up for what went: weights fitted to the original in closed form."""
