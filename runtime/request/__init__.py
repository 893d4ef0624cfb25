"""What was asked for: the request, checked and resolved into a job."""
