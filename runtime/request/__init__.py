"""The request, checked and resolved into a job."""
