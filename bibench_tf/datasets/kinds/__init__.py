"""The kinds of data sets: concrete classes, and functions that data sets of one kind share."""
