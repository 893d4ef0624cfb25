"""Files of unknown origin: recognised by their first bytes, and read without running what is in them."""
