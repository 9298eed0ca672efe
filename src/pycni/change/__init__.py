"""What is to be changed on a host, as values: operations, plans made of them, and the difference of two states."""
