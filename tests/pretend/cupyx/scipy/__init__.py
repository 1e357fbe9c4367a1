"""What stands in for `cupyx.scipy`."""
