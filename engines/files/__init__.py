"""Files from elsewhere: told apart by their first bytes, and read without running what is in them."""
