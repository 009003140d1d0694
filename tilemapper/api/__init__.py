"""What takes several rooms at once, as functions: the same as the commands, without their words.

Above `report`, `render` and `training`, which do not know each other, and below `cli`, which calls
these functions and prints what they return.
"""
