"""The files of a day: which there are, and exactly what is in them."""
