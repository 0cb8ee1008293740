"""What stands in for a GPU and its libraries on the host."""
