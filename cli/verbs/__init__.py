"""The verbs as the parser sees them: words and options in, work done by the module of that name.

A module here declares and checks what was typed, and imports what does the work when it runs:
starting fast is half of a good command line.
"""
